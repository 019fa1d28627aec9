"""ResNets: their registry of tensors, their weights in the engine, and their scores of images.

This package never trains, and never opens a data set.
"""
