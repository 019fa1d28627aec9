"""The names of classes and the labels of images, which data sets and networks both have.

This package never opens an image or a network.
"""
