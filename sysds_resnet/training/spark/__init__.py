"""Training steps on a Spark cluster, whose executors read the images.

It adds no loop of its own.
"""
