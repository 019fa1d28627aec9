"""Data sets that are written once, as shards of images of one size and as matrices of SystemDS.

The package knows nothing of networks.
"""
