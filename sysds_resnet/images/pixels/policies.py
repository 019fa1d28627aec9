"""Torchvision's ColorJitter, RandAugment, TrivialAugmentWide and RandomErasing.

Once the random choices are made, the pixels equal torchvision's on Pillow images. The choices are made by
`rng.random()` alone because NumPy promises no fixed stream for a generator's other methods.
"""

import math
from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

ERASE_SCALE = (0.02, 0.33)
ERASE_RATIO = (0.3, 3.3)
ERASE_TRIES = 10

LAST_LEVEL = 30
"""The highest level of magnitude: levels are 0..30, the 31 bins of torchvision's policies."""


def _affine(image: Image.Image, *matrix: float) -> Image.Image:
    """Shows at (x, y) what is at (a x + b y + c, d x + e y + f) of the image, and black outside of it."""
    return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)


def _shift_hue(image: Image.Image, turns: float) -> Image.Image:
    hue, saturation, value = image.convert("HSV").split()
    shift = int(255 * turns)  # although a full turn is 256: torchvision's choice
    hue = hue.point([(level + shift) % 256 for level in range(256)])
    return Image.merge("HSV", (hue, saturation, value)).convert("RGB")


OPERATIONS: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "Identity": lambda image, _: image,
    "ShearX": lambda image, slope: _affine(image, 1, slope, 0, 0, 1, 0),
    "ShearY": lambda image, slope: _affine(image, 1, 0, 0, slope, 1, 0),
    "TranslateX": lambda image, pixels: _affine(image, 1, 0, -int(pixels), 0, 1, 0),
    "TranslateY": lambda image, pixels: _affine(image, 1, 0, 0, 0, 1, -int(pixels)),
    "Rotate": lambda image, degrees: image.rotate(degrees, Image.Resampling.BILINEAR),
    "Brightness": lambda image, change: ImageEnhance.Brightness(image).enhance(1 + change),
    "Color": lambda image, change: ImageEnhance.Color(image).enhance(1 + change),
    "Contrast": lambda image, change: ImageEnhance.Contrast(image).enhance(1 + change),
    "Sharpness": lambda image, change: ImageEnhance.Sharpness(image).enhance(1 + change),
    "Posterize": lambda image, bits: ImageOps.posterize(image, int(bits)),
    "Solarize": lambda image, threshold: ImageOps.solarize(image, threshold),
    "AutoContrast": lambda image, _: ImageOps.autocontrast(image),
    "Equalize": lambda image, _: ImageOps.equalize(image),
    "Hue": _shift_hue,
}
"""The operations on an image in mode RGB; the name of the second argument says what its magnitude is."""

_UNSIGNED = {"Identity", "Posterize", "Solarize", "AutoContrast", "Equalize"}

WIDE_RANGES: dict[str, float] = {
    "Identity": 0,
    "ShearX": 0.99,
    "ShearY": 0.99,
    "TranslateX": 32,
    "TranslateY": 32,
    "Rotate": 135,
    "Brightness": 0.99,
    "Color": 0.99,
    "Contrast": 0.99,
    "Sharpness": 0.99,
    "Posterize": 6,
    "Solarize": 255,
    "AutoContrast": 0,
    "Equalize": 0,
}
"""The operations of TrivialAugment, each with the `reach` that `operation_magnitude` takes."""


def rand_augment_ranges(width: int, height: int) -> dict[str, float]:
    """Gives RandAugment's operations for an image of this size in pixels, each with its `reach`.

    `operation_magnitude` says what the reach of an operation is.
    """
    changes = dict.fromkeys(("Brightness", "Color", "Contrast", "Sharpness"), 0.9)
    shift = {"TranslateX": 150 / 331 * width, "TranslateY": 150 / 331 * height}
    return WIDE_RANGES | changes | shift | {"ShearX": 0.3, "ShearY": 0.3, "Rotate": 30, "Posterize": 4}


def operation_magnitude(name: str, level: int, reach: float) -> float:
    """Gives an operation's magnitude, without sign, at a level.

    Args:
        name: The name of the operation.
        level: The level, 0..30.
        reach: The magnitude at level 30; for Posterize the number of bits that are lost there, for Solarize
            the threshold at level 0.

    Returns:
        The magnitude, as the float32 that `torch.linspace` gives where the processor multiplies and adds with
        one rounding.
    """
    if name == "Posterize":
        return 8 - round(reach * level / LAST_LEVEL)
    if name == "Solarize":
        return reach * (LAST_LEVEL - level) / LAST_LEVEL
    # In TrivialAugment's table the last bit decides whether level 15 translates by 15 or 16 pixels.
    last = float(np.float32(reach))
    step = float(np.float32(last / LAST_LEVEL))
    below = level < (LAST_LEVEL + 1) // 2
    return float(np.float32(step * level if below else last - step * (LAST_LEVEL - level)))


def apply_operation(image: Image.Image, name: str, magnitude: float) -> Image.Image:
    """Applies one operation of `OPERATIONS`; what it moves in from outside the image is black.

    Args:
        image: The Pillow image, in mode RGB.
        name: The name of the operation.
        magnitude: The slope of a shear; pixels of a translation, cut to whole ones; degrees of a rotation,
            counter-clockwise; change of the factor 1 of Brightness, Color (saturation), Contrast and
            Sharpness; bits that Posterize keeps; least value that Solarize inverts; turns of the hue, within
            -0.5..0.5. The others have none.

    Returns:
        A Pillow image of the same mode and size.

    Raises:
        KeyError: If there is no such operation.
    """
    return OPERATIONS[name](image, magnitude)


def color_jitter(
    image: Image.Image,
    rng: np.random.Generator,
    brightness: float,
    contrast: float,
    saturation: float,
    hue: float,
) -> Image.Image:
    """Changes brightness, contrast, saturation and hue in random order, as torchvision's ColorJitter does.

    Args:
        image: The Pillow image, in mode RGB.
        rng: The source of random numbers. It draws four, one for each operation in the order of the
            arguments, whose ranks give the new order of the operations; then, in the new order, one for each
            operation of nonzero strength.
        brightness: The strength b >= 0, by which the factor is drawn uniformly from max(0, 1 - b)..1 + b; 0
            leaves the operation out.
        contrast: The strength of the change of contrast, whose factor is drawn in the same way.
        saturation: The strength of the change of saturation, whose factor is drawn in the same way.
        hue: The strength h in 0..0.5, by which the turns of the hue are drawn uniformly from -h..h; 0 leaves
            the operation out.

    Returns:
        A Pillow image of the same mode and size.
    """
    strengths = {"Brightness": brightness, "Contrast": contrast, "Color": saturation, "Hue": hue}
    for name in sorted(strengths, key=lambda _: rng.random()):
        high = strengths[name]
        if high > 0:
            low = max(-1, -high)
            image = apply_operation(image, name, low + (high - low) * rng.random())
    return image


def rand_augment(
    image: Image.Image, rng: np.random.Generator, num_ops: int = 2, magnitude: int = 9
) -> Image.Image:
    """Applies random operations of one level: RandAugment (Cubuk et al., arXiv 1909.13719).

    It is torchvision's RandAugment with its 31 bins, bilinear interpolation and black fill.

    Args:
        image: The Pillow image, in mode RGB.
        rng: The source of random numbers; for each operation, it draws which of the 14 it is, then its sign
            if it has one.
        num_ops: The number of operations that follow one another; 2 by default.
        magnitude: The level of the operations, 0..30; 9 by default.

    Returns:
        A Pillow image of the same mode and size.
    """
    for _ in range(num_ops):
        image = _augment(image, rng, rand_augment_ranges(*image.size), magnitude)
    return image


def trivial_augment_wide(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Applies one random operation of random level: TrivialAugment (Müller and Hutter, arXiv 2103.10158).

    It is torchvision's TrivialAugmentWide with its 31 bins, bilinear interpolation and black fill.

    Args:
        image: The Pillow image, in mode RGB.
        rng: The source of random numbers; it draws the level in 0..30, which of the 14 operations it is, then
            its sign if it has one.

    Returns:
        A Pillow image of the same mode and size.
    """
    return _augment(image, rng, WIDE_RANGES, int((LAST_LEVEL + 1) * rng.random()))


def _augment(
    image: Image.Image, rng: np.random.Generator, ranges: Mapping[str, float], level: int
) -> Image.Image:
    """Applies an operation drawn from `ranges` at this level, with a random sign if it has one."""
    name = list(ranges)[int(len(ranges) * rng.random())]
    magnitude = operation_magnitude(name, level, ranges[name])
    if name not in _UNSIGNED and rng.random() >= 0.5:
        magnitude = -magnitude
    return apply_operation(image, name, magnitude)


def random_erasing(
    pixels: np.ndarray,
    rng: np.random.Generator,
    probability: float,
    fill: np.ndarray,
    scale: tuple[float, float] = ERASE_SCALE,
    ratio: tuple[float, float] = ERASE_RATIO,
) -> np.ndarray:
    """Erases a random box with a probability: Random Erasing (Zhong et al., arXiv 1708.04896).

    It is torchvision's RandomErasing, but before normalisation instead of after it. There the box is 0 by
    default; the rounded mean of the data set as `fill` is the same here, but for the rounding.

    Args:
        pixels: The image, uint8 of shape (H, W, C); not changed.
        rng: The source of random numbers; it draws whether to erase, then what `erasing_box` draws.
        probability: The probability of erasing, in 0..1.
        fill: The colour of the box, uint8 of shape (C,).
        scale: The least and greatest share of the box in the image's area; (0.02, 0.33) by default.
        ratio: The least and greatest height / width of the box; (0.3, 3.3) by default.

    Returns:
        The image, uint8 of shape (H, W, C): a copy, or `pixels` itself if nothing is erased.
    """
    height, width, _ = pixels.shape
    box = erasing_box(height, width, rng, scale, ratio) if rng.random() < probability else None
    if box is None:
        return pixels
    top, left, h, w = box
    erased = pixels.copy()
    erased[top : top + h, left : left + w] = fill
    return erased


def erasing_box(
    height: int,
    width: int,
    rng: np.random.Generator,
    scale: tuple[float, float] = ERASE_SCALE,
    ratio: tuple[float, float] = ERASE_RATIO,
) -> tuple[int, int, int, int] | None:
    """Draws the box of torchvision's RandomErasing.

    The area is uniform in `scale` times the image's, the logarithm of the aspect ratio is uniform between
    those of `ratio`, and the position is uniform.

    Args:
        height: The height of the image in pixels, at least 1.
        width: The width of the image in pixels, at least 1.
        rng: The source of random numbers; it draws area and ratio, then top and left of the box that fits.
        scale: The least and greatest share of the box in the image's area; (0.02, 0.33) by default.
        ratio: The least and greatest height / width of the box; (0.3, 3.3) by default.

    Returns:
        The box (top, left, height, width) in pixels, smaller than the image either way and possibly empty, or
        None if ten draws do not fit.
    """
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for _ in range(ERASE_TRIES):
        area = height * width * (scale[0] + (scale[1] - scale[0]) * rng.random())
        aspect = math.exp(low + (high - low) * rng.random())
        h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if h < height and w < width:
            return int((height - h + 1) * rng.random()), int((width - w + 1) * rng.random()), h, w
    return None
