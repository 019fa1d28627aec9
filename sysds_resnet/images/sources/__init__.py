"""Where the bytes of labelled images come from: one file for each layout of data sets on disk.

It never decodes an image.
"""
