"""Names of classes and labels of images, which data sets and networks both have.

It never opens an image or a network.
"""
