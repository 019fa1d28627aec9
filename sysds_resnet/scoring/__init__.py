"""Scores of images by one or several networks: evaluations and predictions.

It never changes a weight.
"""
