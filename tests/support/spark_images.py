"""A data set in arrays for steps on a Spark cluster, and into what batches it goes."""

import numpy as np

from sysds_resnet.images import ArrayDataset

CLASSES, IMAGES, BATCH, MICRO_BATCH = 5, 24, 8, 2
MEAN, STD = np.array([120.0, 110.0, 100.0]), np.array([60.0, 50.0, 70.0])


def make_dataset():
    """Pictures of noise, wider than high, and labels."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (IMAGES, 32, 40, 3), dtype=np.uint8)
    return ArrayDataset(images, rng.integers(0, CLASSES, IMAGES), list("abcde"), mean=MEAN, std=STD)
