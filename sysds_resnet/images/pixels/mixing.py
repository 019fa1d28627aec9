"""Mixup and CutMix: images of a batch are mixed with their neighbours, as in torchvision's recipe."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from sysds_resnet.classes.labels import MixedLabels
from sysds_resnet.images.pixels.transforms import Purpose, sample_rng


@dataclass(frozen=True)
class Mixing:
    """How batches are mixed: each in one of the ways that are switched on, chosen with equal probability.

    Attributes:
        mixup: The alpha of mixup (Zhang et al., arXiv 1710.09412), usually 0.2; 0 means off.
        cutmix: The alpha of CutMix (Yun et al., arXiv 1905.04899), usually 1; 0 means off.
    """

    mixup: float = 0.0
    cutmix: float = 0.0

    def __bool__(self) -> bool:
        return self.mixup > 0 or self.cutmix > 0

    def apply(
        self, images: np.ndarray, labels: np.ndarray, seed: int, epoch: int, step: int
    ) -> tuple[np.ndarray, MixedLabels]:
        """Mixes each image with the one before it in the batch, the first with the last.

        The share of an image is drawn from Beta(alpha, alpha) by (seed, epoch, step), and is the same for the
        whole batch. Mixup's pixels are rounded, since images stay uint8.

        Args:
            images: The images, uint8 of shape (N, H, W, C). They are normalised later, which comes to the
                same as mixing normalised images.
            labels: The class numbers, integers of shape (N,).
            seed: The seed of the run, at least 0.
            epoch: The epoch of the batch.
            step: The place of the batch in its epoch.

        Returns:
            The mixed images, uint8 of shape (N, H, W, C), and their labels.
        """
        from scipy.special import betaincinv  # not at the top: readers of images start sooner without it

        rng = sample_rng(seed, Purpose.MIX, epoch, step)
        ways = [name for name in ("mixup", "cutmix") if getattr(self, name) > 0]
        way = ways[int(rng.random() * len(ways))]
        alpha = getattr(self, way)
        share = float(betaincinv(alpha, alpha, rng.random()))
        others = np.roll(images, 1, axis=0)
        if way == "mixup":
            mixed = np.empty_like(images)
            for i in range(len(images)):  # one by one, as a batch in floats is four times as large
                own = np.float32(share) * images[i]
                mixed[i] = np.rint(own + np.float32(1 - share) * others[i])
        else:
            top, left, bottom, right = cutmix_box(*images.shape[1:3], share, rng)
            mixed = images.copy()
            mixed[:, top:bottom, left:right] = others[:, top:bottom, left:right]
            share = 1 - (bottom - top) * (right - left) / (images.shape[1] * images.shape[2])
        return mixed, MixedLabels(labels, np.roll(labels, 1), np.full(len(labels), share))


def cutmix_box(height: int, width: int, share: float, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Draws the rectangle that comes from the other image.

    Args:
        height: The height of the images in pixels.
        width: The width of the images in pixels.
        share: The share of the area that the image keeps, before the rectangle is cut off at the edges.
        rng: The source of random numbers; its `random()` draws the centre across, then down.

    Returns:
        The box (top, left, bottom, right) in pixels, the last two exclusive.
    """
    across, down = int(rng.random() * width), int(rng.random() * height)
    half = 0.5 * math.sqrt(1 - share)
    half_width, half_height = int(half * width), int(half * height)
    return (
        max(down - half_height, 0),
        max(across - half_width, 0),
        min(down + half_height, height),
        min(across + half_width, width),
    )
