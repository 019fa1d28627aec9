"""The way from an image's bytes to its pixels: decoding, resizing, augmentation, mixing.

The package never knows where the bytes came from.
"""
