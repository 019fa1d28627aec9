"""Files of weights, written by this program or by others, and the metadata beside the weights.

This package never computes with the weights.
"""
