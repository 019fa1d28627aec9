"""Arrays of images and labels, on their way into the engine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from py4j.java_gateway import JavaObject

from sysds_resnet.errors import UserError


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


def check_images(images: np.ndarray, channels: int) -> None:
    """Checks what is to be images.

    Raises:
        UserError: If they are not (N, H, W, channels), or hold NaN or infinity.
    """
    if images.ndim != 4 or images.shape[3] != channels or not len(images):
        raise UserError(
            f"images: found shape {images.shape}, expected (N, H, W, {channels}) with N of at least 1"
        )
    if images.dtype.kind == "f" and not np.isfinite(images).all():
        first = int(np.argmax(~np.isfinite(images).all(axis=(1, 2, 3))))
        raise UserError(f"images: found NaN or infinity in image {first}, expected finite values; repair it")


def check_labels(labels: np.ndarray, n: int, num_classes: int) -> np.ndarray:
    """The engine's class numbers from 1 for labels from 0.

    Args:
        labels: Of shape (n,), or (n, 3) of mixed images: a label, another, and the share of the first.
        n: Number of images.
        num_classes: Number of classes.

    Returns:
        float64 of shape (n, 1) or (n, 3).

    Raises:
        UserError: If they are not n whole numbers from 0 to num_classes - 1, or a share is not in [0, 1].
    """
    labels = np.asarray(labels)
    if labels.shape not in ((n,), (n, 3)) or labels.dtype.kind not in "iuf":
        raise UserError(
            f"labels: found {labels.dtype} of shape {labels.shape}, expected integers of shape ({n},); "
            "give one for each image"
        )
    y = labels.reshape(n, -1).astype(np.float64)
    classes, shares = y[:, :2], y[:, 2:]
    wrong = np.argwhere(~((classes >= 0) & (classes < num_classes) & (classes % 1 == 0)))
    if wrong.size:
        raise UserError(
            f"labels: found {classes[tuple(wrong[0])]:g} at position {wrong[0][0]}, expected whole numbers "
            f"from 0 to {num_classes - 1}; correct the labels or the number of classes"
        )
    if not ((shares >= 0) & (shares <= 1)).all():
        raise UserError(
            f"labels: found shares from {shares.min()} to {shares.max()}, expected 0 to 1; correct them"
        )
    return np.hstack([classes + 1, shares])


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
