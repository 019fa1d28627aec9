"""Running programs on NVIDIA GPUs: what this machine has of CUDA, and the Java that this package adds for it.

Nothing in this package knows what is computed there.
"""
