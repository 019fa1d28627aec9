"""Weights in files, of this program and of others, and what stands beside them.

It never computes with them.
"""
