"""ImageNet's constants: what pixels are normalized with, and the sizes of images in evaluations."""

from __future__ import annotations

import numpy as np

IMAGENET_MEAN = 255 * np.array([0.485, 0.456, 0.406])
"""Mean of ImageNet's red, green, blue in units of 0..255, as torchvision's weights expect it."""

IMAGENET_STD = 255 * np.array([0.229, 0.224, 0.225])
"""Standard deviation of ImageNet's red, green, blue in units of 0..255, likewise."""


def default_resize_size(image_size: int) -> int:
    """The shorter side before the centre crop, in torchvision's proportion: 256 for 224."""
    return round(image_size * 256 / 224)


DEFAULT_IMAGE_SIZE = 224
"""Side of the images that ImageNet's networks are evaluated on, in pixels."""
