"""ResNet-18s of the class `ResNet`, and small images for them."""

import numpy as np
from reference import arrays

from sysds_resnet import ResNet

CLASSES = 7
MEAN, STD = np.array([120.0, 110.0, 100.0]), np.array([60.0, 50.0, 70.0])


def random_images(n, height=32, width=32, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, height, width, channels), dtype=np.uint8)


def reference_model(engine, reference):
    """A model with a reference's weights, and a mean and deviations of its own."""
    return ResNet.from_state_dict(arrays(reference), engine, mean=MEAN, std=STD)


def seeded_model(engine):
    """A fresh model of three classes."""
    return ResNet(18, num_classes=3, engine=engine, seed=1)
