"""Sources of the bytes of labelled images: one file for each layout of data sets on disk.

The package never decodes an image.
"""
