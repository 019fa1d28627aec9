"""Training by several processes: each does the same steps on its share of every batch.

The gradients are summed between them (group.py); nothing else of a step is shared.
"""
