"""Preprocessing and augmentation of images, by torchvision's definitions.

The reference is torchvision's classification recipe on Pillow images with antialiased bilinear resampling:
`Resize(256), CenterCrop(224)` for evaluation; `RandomResizedCrop(224), RandomHorizontalFlip()` for training,
and then what `Augmentation` adds. Normalisation is not done here: images stay uint8, and `IMAGENET_MEAN` and
`IMAGENET_STD` go with them.
"""

import enum
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from sysds_resnet.imagenet import IMAGENET_MEAN, default_resize_size
from sysds_resnet.images.pixels.decode import Picture
from sysds_resnet.images.pixels.policies import (
    color_jitter,
    rand_augment,
    random_erasing,
    trivial_augment_wide,
)

CROP_SCALE = (0.08, 1.0)
CROP_RATIO = (3 / 4, 4 / 3)
CROP_TRIES = 10

Place = tuple[float, float]
"""The place of a crop in an image, down and across: 0 is at the image's beginning, 1 at its end."""

CENTRE: Place = (0.5, 0.5)
CORNERS: tuple[Place, ...] = ((0, 0), (0, 1), (1, 0), (1, 1))

Policy = Literal["none", "randaugment", "trivialaugment"]


@dataclass(frozen=True)
class Augmentation:
    """The steps that training images go through, in this order; the defaults are torchvision's.

    Attributes:
        crop_scale: The least and greatest share of the image's area in a random crop.
        crop_ratio: The least and greatest width / height of a crop.
        flip: The probability of a horizontal flip.
        policy: The policy of random operations: "randaugment" (Cubuk et al., arXiv 1909.13719) with two
            operations, or "trivialaugment" (Müller and Hutter, arXiv 2103.10158), its wide form.
        magnitude: The magnitude of RandAugment's operations, 0 to 30.
        color_jitter: The greatest relative change of brightness, contrast and saturation, in random order.
        hue: The greatest change of hue, in turns of the colour circle, 0 to 0.5; its place among the three
            changes of `color_jitter` is random too.
        erasing: The probability that a random rectangle gets the mean colour (Zhong et al., arXiv
            1708.04896).
    """

    crop_scale: tuple[float, float] = CROP_SCALE
    crop_ratio: tuple[float, float] = CROP_RATIO
    flip: float = 0.5
    policy: Policy = "none"
    magnitude: int = 9
    color_jitter: float = 0.0
    hue: float = 0.0
    erasing: float = 0.0


class Purpose(enum.IntEnum):
    """The purpose of a stream of random numbers; no two purposes share one."""

    AUGMENT = 1
    SYNTHETIC_TRAIN = 2
    SYNTHETIC_VAL = 3
    MIX = 4


def sample_rng(seed: int, purpose: Purpose, *indices: int) -> np.random.Generator:
    """Gives the random numbers of (seed, purpose, indices), independent of any other combination's.

    Args:
        seed: The seed, at least 0.
        purpose: The purpose of the numbers.
        indices: Numbers such as epoch and sample, each at least 0; equally many at every use of one purpose.
    """
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, int(purpose), *indices])))


def eval_transform(
    picture: Picture, image_size: int, resize_size: int | None = None, place: Place = CENTRE
) -> np.ndarray:
    """Preprocesses an image for evaluation: resizes the shorter side, then crops, usually the centre.

    Args:
        picture: The image.
        image_size: The side of the result in pixels.
        resize_size: The shorter side in pixels before the crop; None means `default_resize_size(image_size)`.
            Where it is less than `image_size`, what is missing is black.
        place: The place of the crop in the resized image.

    Returns:
        The pixels, uint8 of shape (image_size, image_size, 3). No value is more than 1 from that of
        torchvision's `CenterCrop(image_size)(Resize(resize_size)(image))`, or in the corners `FiveCrop`'s, on
        Pillow images, except by scaled decoding.
    """
    size = default_resize_size(image_size) if resize_size is None else resize_size
    height, width = picture.height, picture.width
    # Sizes are rounded as in torchvision. Only the part that stays is resized, since an elongated image may
    # be huge.
    new_height, new_width = (
        (int(size * height / width), size) if width <= height else (size, int(size * width / height))
    )
    top, bottom, above = _span(new_height, image_size, place[0])
    left, right, before = _span(new_width, image_size, place[1])
    down, across = height / new_height, width / new_width
    box = (top * down, left * across, (bottom - top) * down, (right - left) * across)
    pixels = picture.part(box, bottom - top, right - left, alone=False)
    if pixels.shape[:2] == (image_size, image_size):
        return pixels
    padded = np.zeros((image_size, image_size, 3), np.uint8)
    padded[above : above + bottom - top, before : before + right - left] = pixels
    return padded


def _span(length: int, size: int, place: float) -> tuple[int, int, int]:
    """Gives the range of `length` pixels that a crop of `size` has, and how many are missing before it.

    Missing pixels are missing on both sides, the odd one behind, as torchvision pads.
    """
    if length < size:
        return 0, length, (size - length) // 2
    start = round((length - size) * place)
    return start, start + size, 0


def train_transform(
    picture: Picture, image_size: int, rng: np.random.Generator, augmentation: Augmentation
) -> np.ndarray:
    """Augments an image for training.

    Args:
        picture: The image.
        image_size: The side of the result in pixels.
        rng: The source of random numbers, of which only `random()` is used.
        augmentation: The augmentation.

    Returns:
        The pixels, uint8 of shape (image_size, image_size, 3).
    """
    box = random_crop_box(
        picture.height, picture.width, rng, augmentation.crop_scale, augmentation.crop_ratio
    )
    pixels = picture.part(box, image_size, image_size, alone=True)
    if rng.random() < augmentation.flip:
        pixels = pixels[:, ::-1]
    strength, hue = augmentation.color_jitter, augmentation.hue
    if augmentation.policy != "none" or strength or hue:
        image = Image.fromarray(np.ascontiguousarray(pixels))
        if augmentation.policy == "randaugment":
            image = rand_augment(image, rng, magnitude=augmentation.magnitude)
        elif augmentation.policy == "trivialaugment":
            image = trivial_augment_wide(image, rng)
        pixels = np.asarray(color_jitter(image, rng, strength, strength, strength, hue))
    if augmentation.erasing:
        fill = np.rint(IMAGENET_MEAN).astype(np.uint8)  # 0 once normalised, as in torchvision's recipe
        pixels = random_erasing(pixels, rng, augmentation.erasing, fill)
    return pixels


def random_crop_box(
    height: int,
    width: int,
    rng: np.random.Generator,
    scale: tuple[float, float] = CROP_SCALE,
    ratio: tuple[float, float] = CROP_RATIO,
) -> tuple[int, int, int, int]:
    """Draws the box of torchvision's RandomResizedCrop (Szegedy et al., arXiv 1409.4842, section 6).

    The area is uniform in `scale` times the image's, the logarithm of the aspect ratio is uniform between
    those of `ratio`, and the position is uniform. After ten draws that do not fit, it is the largest central
    box within `ratio`.

    Args:
        height: The height of the image in pixels, at least 1.
        width: The width of the image in pixels, at least 1.
        rng: The source of random numbers. Its `random()` draws from [0, 1): area, ratio, then top and left of
            the box that fits. Only this method is used because NumPy promises no fixed stream for the others.
        scale: The least and greatest share of the image's area.
        ratio: The least and greatest width / height.

    Returns:
        The box (top, left, height, width) in pixels.
    """
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for _ in range(CROP_TRIES):
        area = height * width * (scale[0] + (scale[1] - scale[0]) * rng.random())
        aspect = math.exp(low + (high - low) * rng.random())
        w = round(math.sqrt(area * aspect))
        h = round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            top = int(rng.random() * (height - h + 1))
            left = int(rng.random() * (width - w + 1))
            return top, left, h, w
    w, h = width, height
    if width / height < ratio[0]:
        h = round(width / ratio[0])
    elif width / height > ratio[1]:
        w = round(height * ratio[1])
    return (height - h) // 2, (width - w) // 2, h, w
