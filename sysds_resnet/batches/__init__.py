"""Batches of a data set in an order that can be resumed, read ahead by several workers.

The package never knows what a batch is for.
"""
