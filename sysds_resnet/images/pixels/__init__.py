"""From the bytes of an image to its pixels: decoding, resizing, augmentation, mixing.

It never knows where the bytes came from.
"""
