"""Scikit-learn's bundled handwritten digits: real images that need no download."""

import numpy as np

from sysds_resnet.errors import UserError
from sysds_resnet.images.datasets import ArrayDataset
from sysds_resnet.system.extras import extra

NATIVE_SIZE = 8
MAX_VALUE = 16
VAL_IMAGES = 360
DEFAULT_IMAGE_SIZE = 32


def open_digits(split: str, *, image_size: int | None = None, split_seed: int = 0) -> ArrayDataset:
    """Opens the 1,797 digits of `sklearn.datasets.load_digits` (UCI's handwritten digits).

    1,437 of them are for training and 360 for validation, stratified by class. The values v of an 8x8 image,
    0..16, become round(v * 255 / 16) as uint8; every pixel is repeated to reach `image_size`, and the three
    channels are equal. The mean and standard deviation of either split are those of the training split's
    pixels.

    Args:
        split: The split, "train" or "val".
        image_size: The side of the images in pixels, a multiple of 8; None means 32.
        split_seed: The seed of the split. It is not the run's seed, so that all runs share one validation
            set.

    Raises:
        UserError: If `image_size` is not a multiple of 8.
    """
    # Importing scikit-learn takes longer than all other imports of this package together.
    with extra("samples", "digits"):
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

    size = DEFAULT_IMAGE_SIZE if image_size is None else image_size
    if size < NATIVE_SIZE or size % NATIVE_SIZE:
        raise UserError(
            f"image_size: found {size} for digits, expected a multiple of {NATIVE_SIZE} "
            f"since its {NATIVE_SIZE}x{NATIVE_SIZE} pixels are repeated whole: choose {DEFAULT_IMAGE_SIZE}"
        )
    data = load_digits()
    pixels = np.rint(data.images * 255 / MAX_VALUE).astype(np.uint8)
    train, val = train_test_split(
        np.arange(len(pixels)), test_size=VAL_IMAGES, stratify=data.target, random_state=split_seed
    )
    chosen = np.sort(train if split == "train" else val)
    factor = size // NATIVE_SIZE
    images = pixels[chosen].repeat(factor, axis=1).repeat(factor, axis=2)
    return ArrayDataset(
        np.repeat(images[..., np.newaxis], 3, axis=3),
        data.target[chosen],
        [str(name) for name in data.target_names],
        mean=np.full(3, pixels[train].mean()),
        std=np.full(3, pixels[train].std()),
    )
