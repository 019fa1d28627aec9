"""The normalization of images in arrays by the statistics of the training images, whatever their scale."""

from __future__ import annotations

import math

import numpy as np

from sysds_resnet.images.pixels.resample import resize_values

_CONSTANT = 1e-12  # the share of the mean below which a standard deviation is the rounding of constant pixels


def mean_and_std(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Computes the mean and the standard deviation of each channel of images.

    Args:
        images: The images, numbers of shape (n, H, W, C).

    Returns:
        The mean and the standard deviation, float64 of shape (C,). The latter is 1 for equal values.
    """
    mean = images.mean(axis=(0, 1, 2), dtype=np.float64)
    # one image at a time, since this takes eight times the memory of uint8
    squares = sum(np.square(image - mean).sum(axis=(0, 1)) for image in images)
    std = np.sqrt(squares / math.prod(images.shape[:3]))
    return mean, np.where(std <= _CONSTANT * np.abs(mean), 1.0, std)


def normalized(
    images: np.ndarray, size: tuple[int, int], mean: np.ndarray, std: np.ndarray, dtype: type
) -> np.ndarray:
    """Resizes images, as `resize_values` does, and normalizes them.

    Args:
        images: The images, numbers of shape (n, H, W, C).
        size: The height and width of the result in pixels.
        mean, std: The mean and the standard deviation of each channel, of shape (C,).
        dtype: The type of the result.

    Returns:
        The normalized images, of shape (n, *size, C).
    """
    result = np.empty((len(images), *size, images.shape[3]), dtype)
    for i, image in enumerate(images):
        result[i] = (resize_values(image, *size) - mean) / std
    return result
