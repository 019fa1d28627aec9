"""Training steps on a Spark cluster, whose executors read the images.

There is no loop here: `training_loop` in training/loop.py calls these steps like all others.
"""
