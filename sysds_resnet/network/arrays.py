"""Arrays of images and labels, checked and laid out on their way into the engine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from py4j.java_gateway import JavaObject

from sysds_resnet.classes.labels import MixedLabels, class_labels
from sysds_resnet.engine import Engine
from sysds_resnet.errors import UserError
from sysds_resnet.system.checks import as_array


@dataclass(frozen=True)
class SentImages:
    """Images that are in an engine, or on their way there.

    Attributes:
        shape: The shape of the images, (N, H, W, C).
        size: The number of images in each part; the last part may be filled up to it.
        parts: The images as matrices: handles of those in the engine, or arrays of those on their way, which
            may come from an iterator that gives each only once.
        packed: Whether each pixel is one number, as `unpack` in dml/training/data.dml takes it.
        engine: The engine that the images are in, or are laid out for.
        fault: What is wrong with the scale of the images, as `scale_fault` says it; None for nothing.
    """

    shape: tuple[int, ...]
    size: int
    parts: Iterable[np.ndarray | JavaObject]
    packed: bool
    engine: Engine
    fault: str | None

    def __len__(self) -> int:
        """Gives the number of images."""
        return self.shape[0]

    def check(self, engine: Engine, channels: int, std: np.ndarray) -> None:
        """Refuses images that a network cannot take: they may have been sent with another model.

        Args:
            engine: The engine of the network.
            channels: The number of channels that the network takes.
            std: The standard deviations that the images will be divided by. If all are above 1 and at most
                255, they are for pixels from 0 to 255, and the images must be such; otherwise the scale of
                the images is not checked.

        Raises:
            UserError: If the images are in another engine, have other channels, or are on another scale.
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
    """Checks images, and gives them as an array.

    Args:
        images: Numbers of shape (N, H, W, channels): an array, or anything that NumPy can make an array of.
        channels: The number of channels that the network takes.

    Raises:
        UserError: If the images have another shape, are no numbers, or hold NaN or infinity.
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
    """Tells what is wrong with the scale of images that should be pixels from 0 to 255.

    A network would take images from 0 to 1 for black ones, without an error. Values slightly beyond either
    end are accepted, since resampling in floating point gives such.

    Args:
        images: The images, as `check_images` gives them.

    Returns:
        One line with the range that was found and what to do about it: images may be scaled to 0..1, already
        normalised, or of another range. None if nothing is wrong.
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
    """Turns labels, which count from 0, into the engine's class numbers, which count from 1.

    Args:
        labels: The labels of the images, in any form that `class_labels` takes, or `MixedLabels`.
        n: The number of images.
        num_classes: The number of classes.

    Returns:
        float64 of shape (n, 1); for mixed images of shape (n, 3), with the class of the image itself, the
        class that was mixed in, and the share of the first.

    Raises:
        UserError: If the labels are not for n images, or a class is not from 0 to num_classes - 1.
    """
    if isinstance(labels, MixedLabels):
        classes = [class_labels(part, n, num_classes) + 1.0 for part in (labels.own, labels.other)]
        return np.column_stack([*classes, labels.share])
    return class_labels(labels, n, num_classes).reshape(n, 1) + 1.0


def weigh(y: np.ndarray, class_weights: Sequence[float]) -> np.ndarray:
    """Puts the weight of each image beside its class number.

    Args:
        y: The class numbers, as `check_labels` gives them, of shape (n, 1); 0 in rows without an image.
        class_weights: The weight of each class; empty for none.

    Returns:
        float64 of shape (n, 2), as `targets` in dml/layers/cross_entropy.dml takes it; without weights, `y`.

    Raises:
        UserError: If the images are mixed, and so have more than one class.
    """
    if not class_weights:
        return y
    if y.shape[1] != 1:
        raise UserError(
            "class_weights: found one with mixed images, expected images of one class each; leave one of "
            "the two out"
        )
    return np.column_stack([y, np.array([0.0, *class_weights])[y[:, 0].astype(int)]])


def lay_out(images: np.ndarray, size: int, engine: Engine) -> SentImages:
    """Lays images out as matrices for an engine, without sending them.

    Args:
        images: The images as `check_images` gives them, of shape (N, H, W, C).
        size: The number of images in a matrix; the last matrix is filled up with copies of the last image.
        engine: The engine that will compute with them.

    Returns:
        The images in parts of shape (size*H*W, C), or for a channel-major engine (size, C*H*W). For such an
        engine, uint8 images of three channels are packed: (size, H*W), with one number for each pixel, as
        `unpack` in dml/training/data.dml takes it.
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
    """Packs each pixel of uint8 images (N, H, W, 3) into one number, in an array of shape (N, H*W)."""
    n, height, width, _ = images.shape
    packed = np.zeros((n, height * width), dtype="<u4")
    bytes_of_pixels = packed.view(np.uint8).reshape(n, height, width, 4)
    for channel in range(3):  # one by one takes a quarter of the time of all at once
        bytes_of_pixels[..., channel] = images[..., channel]
    return packed
