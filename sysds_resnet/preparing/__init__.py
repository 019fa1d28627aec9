"""Data sets that are written once, as shards of images of one size and as matrices of SystemDS.

It never knows a network.
"""
