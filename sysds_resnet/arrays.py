"""Arrays of images and labels, on their way into the engine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from py4j.java_gateway import JavaObject

from sysds_resnet.checks import as_array
from sysds_resnet.errors import UserError
from sysds_resnet.labels import MixedLabels, class_labels


@dataclass(frozen=True)
class SentImages:
    """Images in the engine.

    Attributes:
        shape: (N, H, W, C).
        size: Images in each part; the last one may be filled up.
        parts: Matrices: arrays on their way, or handles.
        packed: Whether they are as `unpack` in dml/data.dml takes them.
    """

    shape: tuple[int, ...]
    size: int
    parts: list[np.ndarray | JavaObject]
    packed: bool

    def __len__(self) -> int:
        """N."""
        return self.shape[0]


def check_images(images: object, channels: int) -> np.ndarray:
    """What is to be images, as an array.

    Args:
        images: Numbers of shape (N, H, W, channels): an array, or what NumPy makes one of.
        channels: Of the network.

    Raises:
        UserError: If they are of another shape or no numbers, or hold NaN or infinity.
    """
    images = as_array("images", images)
    if images.ndim != 4 or images.shape[3] != channels or not images.size:
        advice = ""
        if images.ndim == 4 and images.shape[1] == channels:
            advice = "; this looks like (N, C, H, W): give images.transpose(0, 2, 3, 1)"
        elif images.ndim == 3 and images.shape[2] == channels:
            advice = "; this looks like a single image: give images[None]"
        raise UserError(
            f"images: found shape {images.shape}, expected (N, H, W, {channels}) with N of at least 1{advice}"
        )
    if images.dtype.kind not in "uif":
        raise UserError(f"images: found {images.dtype}, expected numbers from 0 to 255; convert the array")
    if images.dtype.kind == "f" and not np.isfinite(images).all():
        first = int(np.argmax(~np.isfinite(images).all(axis=(1, 2, 3))))
        raise UserError(f"images: found NaN or infinity in image {first}, expected finite values; repair it")
    return images


def check_scale(images: np.ndarray, std: np.ndarray) -> None:
    """Refuses pixels that are not on the scale of 0 to 255, if mean and standard deviation are.

    A network would take images of 0 to 1 for black ones, and say nothing. Resampling in floating point goes
    past both ends a little.

    Args:
        images: Checked.
        std: Standard deviations that they will be divided by.

    Raises:
        UserError: If they are scaled to 0 to 1, normalised already, or of another range.
    """
    if images.dtype == np.uint8 or std.min() <= 1:  # another scale's, on which nothing is known
        return
    low, high = float(images.min()), float(images.max())
    advice = "bring them to it"
    if images.dtype.kind == "f" and high - low <= 20 and (images % 1 != 0).any() and low <= 1:
        advice = "multiply them by 255" if low >= 0 else "give pixels that are not normalised yet"
        wrong = high <= 1 or low < 0
    else:
        wrong = low < -64 or high > 255 + 64
    if wrong:
        raise UserError(
            f"images: found values from {low:.4g} to {high:.4g}, expected pixels from 0 to 255, as mean and "
            f"std are; {advice}"
        )


def check_labels(labels: object, n: int, num_classes: int) -> np.ndarray:
    """The engine's class numbers from 1 for labels from 0.

    Args:
        labels: Of n images, as of `class_labels`, or those of mixed images.
        n: Number of images.
        num_classes: Number of classes.

    Returns:
        float64 of shape (n, 1), or of mixed images (n, 3): a class, another, and the share of the first.

    Raises:
        UserError: If they are not n whole numbers from 0 to num_classes - 1.
    """
    if isinstance(labels, MixedLabels):
        classes = [class_labels(part, n, num_classes) + 1.0 for part in (labels.own, labels.other)]
        return np.column_stack([*classes, labels.share])
    return class_labels(labels, n, num_classes).reshape(n, 1) + 1.0


def lay_out(images: np.ndarray, size: int, channel_major: bool) -> tuple[Iterator[np.ndarray], bool]:
    """Images as the engine's matrices.

    Args:
        images: Checked, of shape (N, H, W, C).
        size: Images in a matrix; the last is filled up with the last image.
        channel_major: Whether the engine's network is.

    Returns:
        The matrices: of shape (size*H*W, C), or channel-major (size, C*H*W), or of whole numbers in three
        channels one number for each pixel, (size, H*W), as `unpack` in dml/data.dml takes it; and whether
        they are these.
    """
    packed = channel_major and images.dtype == np.uint8 and images.shape[3] == 3

    def to_matrix(part: np.ndarray) -> np.ndarray:
        if packed:
            return pack(part)
        if channel_major:
            return part.transpose(0, 3, 1, 2).reshape(len(part), -1)
        return part.reshape(-1, part.shape[3])

    def matrices() -> Iterator[np.ndarray]:
        for start in range(0, len(images), size):
            part = images[start : start + size]
            if len(part) < size:
                part = np.concatenate([part, np.repeat(part[-1:], size - len(part), axis=0)])
            yield to_matrix(part)

    return matrices(), packed


def pack(images: np.ndarray) -> np.ndarray:
    """One number for each pixel of uint8 images (N, H, W, 3), of shape (N, H*W)."""
    n, height, width, _ = images.shape
    packed = np.zeros((n, height * width), dtype="<u4")
    bytes_of_pixels = packed.view(np.uint8).reshape(n, height, width, 4)
    for channel in range(3):  # which takes a quarter of the time of all at once
        bytes_of_pixels[..., channel] = images[..., channel]
    return packed
