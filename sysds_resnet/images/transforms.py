"""Preprocessing and augmentation of a Pillow image into a uint8 array, by torchvision's definitions.

The reference is torchvision's classification recipe on Pillow images with antialiased bilinear resampling:
`Resize(256), CenterCrop(224)` for evaluation; `RandomResizedCrop(224), RandomHorizontalFlip()` for training.
Normalisation is not done here: images stay uint8, and `IMAGENET_MEAN` and `IMAGENET_STD` go with them.
"""

import enum
import math

import numpy as np
from PIL import Image

IMAGENET_MEAN = 255 * np.array([0.485, 0.456, 0.406])
"""Mean of ImageNet's red, green, blue in units of 0..255, as torchvision's weights expect it."""

IMAGENET_STD = 255 * np.array([0.229, 0.224, 0.225])
"""Standard deviation of ImageNet's red, green, blue in units of 0..255, likewise."""

CROP_SCALE = (0.08, 1.0)
CROP_RATIO = (3 / 4, 4 / 3)
CROP_TRIES = 10
FLIP_PROBABILITY = 0.5


class Purpose(enum.IntEnum):
    """What a stream of random numbers is for; no two purposes share one."""

    AUGMENT = 1
    SYNTHETIC_TRAIN = 2
    SYNTHETIC_VAL = 3


def sample_rng(seed: int, purpose: Purpose, *indices: int) -> np.random.Generator:
    """Give the random numbers of (seed, purpose, indices), independent of any other combination's.

    Args:
        seed: at least 0.
        purpose: what the numbers are for.
        indices: such as epoch and sample, each at least 0; equally many at every use of one purpose.
    """
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, int(purpose), *indices])))


def default_resize_size(image_size: int) -> int:
    """Give the shorter side before the centre crop, in torchvision's proportion: 256 for 224."""
    return round(image_size * 256 / 224)


def eval_transform(image: Image.Image, image_size: int, resize_size: int | None = None) -> np.ndarray:
    """Preprocess for evaluation: resize the shorter side, then crop the centre.

    Args:
        image: a Pillow image in mode RGB.
        image_size: side of the result in pixels.
        resize_size: shorter side before the crop; None means `default_resize_size(image_size)`.

    Returns:
        uint8 of shape (image_size, image_size, 3), equal to torchvision's
        `CenterCrop(image_size)(Resize(resize_size)(image))` on Pillow images.
    """
    size = default_resize_size(image_size) if resize_size is None else resize_size
    return np.array(center_crop(resize_shorter_side(image, size), image_size))


def train_transform(image: Image.Image, image_size: int, rng: np.random.Generator) -> np.ndarray:
    """Augment for training: a random crop of random shape, resized, then flipped with probability 0.5.

    Args:
        image: a Pillow image in mode RGB.
        image_size: side of the result in pixels.
        rng: source of the random numbers; uses its `random()` only.

    Returns:
        uint8 of shape (image_size, image_size, 3).
    """
    top, left, height, width = random_crop_box(image.height, image.width, rng)
    # Not resize(box=...): that one lets pixels outside the box bleed into the edges, torchvision's does not.
    crop = image.crop((left, top, left + width, top + height))
    crop = crop.resize((image_size, image_size), Image.Resampling.BILINEAR)
    if rng.random() < FLIP_PROBABILITY:
        crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.array(crop)


def random_crop_box(
    height: int,
    width: int,
    rng: np.random.Generator,
    scale: tuple[float, float] = CROP_SCALE,
    ratio: tuple[float, float] = CROP_RATIO,
) -> tuple[int, int, int, int]:
    """Draw the box of torchvision's RandomResizedCrop (Szegedy et al., arXiv 1409.4842, section 6).

    Area uniform in `scale` times the image's, log of the aspect ratio uniform in log `ratio`, position
    uniform; after ten draws that do not fit, the largest central box within `ratio`.

    Args:
        height: of the image, at least 1.
        width: of the image, at least 1.
        rng: draws from [0, 1) by `random()`: area, ratio, then top and left of the box that fits. Only this
            method is used because NumPy promises no fixed stream for the others.
        scale: least and greatest share of the image's area.
        ratio: least and greatest width / height.

    Returns:
        (top, left, height, width) in pixels.
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


def resize_shorter_side(image: Image.Image, size: int) -> Image.Image:
    """Resize so that the shorter side is `size`; the longer is int(size * long / short), as torchvision's."""
    width, height = image.size
    new = (size, int(size * height / width)) if width <= height else (int(size * width / height), size)
    return image if new == image.size else image.resize(new, Image.Resampling.BILINEAR)


def center_crop(image: Image.Image, size: int) -> Image.Image:
    """Crop the central size x size pixels, rounded as torchvision does; what is missing is black.

    Torchvision pads first, the odd pixel to the right and bottom, and then crops what is still too large.
    """
    width, height = image.size
    # A box that reaches outside the image is filled with 0 by Pillow's crop.
    left = -((size - width) // 2) if width < size else round((width - size) / 2)
    top = -((size - height) // 2) if height < size else round((height - size) / 2)
    return image.crop((left, top, left + size, top + size))
