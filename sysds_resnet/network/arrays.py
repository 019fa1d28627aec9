"""Arrays of images and labels, on their way into the engine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from py4j.java_gateway import JavaObject

from sysds_resnet.classes.labels import MixedLabels, class_labels
from sysds_resnet.engine import Engine
from sysds_resnet.errors import UserError
from sysds_resnet.system.checks import as_array


@dataclass(frozen=True)
class SentImages:
    """Images in an engine, or on their way there.

    Attributes:
        shape: (N, H, W, C).
        size: Images in each part; the last one may be filled up.
        parts: Matrices: arrays on their way, of which an iterator gives each once, or handles.
        packed: Whether they are as `unpack` in dml/training/data.dml takes them.
        engine: Where they are, or will be.
        fault: As of `scale_fault`.
    """

    shape: tuple[int, ...]
    size: int
    parts: Iterable[np.ndarray | JavaObject]
    packed: bool
    engine: Engine
    fault: str | None

    def __len__(self) -> int:
        """N."""
        return self.shape[0]

    def check(self, engine: Engine, channels: int, std: np.ndarray) -> None:
        """Refuses images that a network cannot take, since they may have been sent by another one.

        Args:
            engine: Of the network.
            channels: Of the network.
            std: Standard deviations that they will be divided by. Between 1 and 255 they are of pixels from 0
                to 255, and so must the images be; of another scale nothing is known.

        Raises:
            UserError: If they are in another engine, have other channels, or are on another scale.
        """
        if self.engine is not engine:
            raise UserError(
                "images: found those that are in another engine, expected this model's; send them with it"
            )
        if self.shape[3] != channels:
            raise UserError(
                f"images: found {self.shape[3]} channels, as sent with another model, expected {channels}; "
                "send them with this one"
            )
        if self.fault and std.min() > 1 and std.max() <= 255:
            raise UserError(self.fault)


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


def scale_fault(images: np.ndarray) -> str | None:
    """What is wrong with images if they are to be pixels from 0 to 255; None for nothing.

    A network would take images of 0 to 1 for black ones, and say nothing. Resampling in floating point goes
    past both ends a little.

    Args:
        images: Checked.

    Returns:
        A line that says whether they are scaled to 0 to 1, normalised already, or of another range.
    """
    if images.dtype == np.uint8:
        return None
    low, high = float(images.min()), float(images.max())
    advice = "bring them to it"
    if images.dtype.kind == "f" and high - low <= 20 and (images % 1 != 0).any() and low <= 1:
        advice = "multiply them by 255" if low >= 0 else "give pixels that are not normalised yet"
        wrong = high <= 1 or low < 0
    else:
        wrong = low < -64 or high > 255 + 64
    if not wrong:
        return None
    return (
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


def lay_out(images: np.ndarray, size: int, engine: Engine) -> SentImages:
    """Images as an engine's matrices, on their way there.

    Args:
        images: Checked, of shape (N, H, W, C).
        size: Images in a matrix; the last is filled up with the last image.
        engine: Where they are to be computed with.

    Returns:
        Parts of shape (size*H*W, C), or channel-major (size, C*H*W), or of whole numbers in three channels
        one number for each pixel, (size, H*W), as `unpack` in dml/training/data.dml takes it.
    """
    packed = engine.channel_major and images.dtype == np.uint8 and images.shape[3] == 3

    def to_matrix(part: np.ndarray) -> np.ndarray:
        if packed:
            return pack(part)
        if engine.channel_major:
            return part.transpose(0, 3, 1, 2).reshape(len(part), -1)
        return part.reshape(-1, part.shape[3])

    def matrices() -> Iterator[np.ndarray]:
        for start in range(0, len(images), size):
            part = images[start : start + size]
            if len(part) < size:
                part = np.concatenate([part, np.repeat(part[-1:], size - len(part), axis=0)])
            yield to_matrix(part)

    return SentImages(images.shape, size, matrices(), packed, engine, scale_fault(images))


def pack(images: np.ndarray) -> np.ndarray:
    """One number for each pixel of uint8 images (N, H, W, 3), of shape (N, H*W)."""
    n, height, width, _ = images.shape
    packed = np.zeros((n, height * width), dtype="<u4")
    bytes_of_pixels = packed.view(np.uint8).reshape(n, height, width, 4)
    for channel in range(3):  # which takes a quarter of the time of all at once
        bytes_of_pixels[..., channel] = images[..., channel]
    return packed
