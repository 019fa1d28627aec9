"""NVIDIA GPUs as a place where programs run: what of CUDA there is, and what our Java adds to the engine.

It never knows what is computed there.
"""
