"""The constants of ImageNet: mean and standard deviation of its pixels, and image sizes in evaluations."""

from __future__ import annotations

import numpy as np

IMAGENET_MEAN = 255 * np.array([0.485, 0.456, 0.406])
"""The mean of ImageNet's red, green and blue in units of 0..255, as torchvision's weights expect it."""

IMAGENET_STD = 255 * np.array([0.229, 0.224, 0.225])
"""The standard deviation of ImageNet's red, green and blue in units of 0..255, for torchvision's weights."""


def default_resize_size(image_size: int) -> int:
    """Gives the shorter side before the centre crop, in torchvision's proportion: 256 for 224 pixels."""
    return round(image_size * 256 / 224)


DEFAULT_IMAGE_SIZE = 224
"""The side of the images that ImageNet's networks are evaluated on, in pixels."""
