"""ResNets: their registry of layers, their weights in the engine, and their scores of images.

It never trains, and never opens a data set.
"""
