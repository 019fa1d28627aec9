"""The reports of a run for people: on the terminal, in metrics.jsonl, in TensorBoard, as charts and tables.

It never changes a run, and what fails here never ends one.
"""
