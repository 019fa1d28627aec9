"""Four images as an array, and their labels in three classes."""

import numpy as np

CLASSES = 3
PLAIN = [2, 0, 1, 1]


def random_images(n=4, **shape):
    return np.random.default_rng(0).integers(0, 256, (n, 32, 40, 3), dtype=np.uint8)
