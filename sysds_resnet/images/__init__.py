"""Data sets of labelled images as uint8 arrays; `open_dataset` opens each of them.

The package knows layouts of files, decoding and augmentation; it knows nothing of batches or of the engine.
"""

import os
from typing import Literal

from sysds_resnet.errors import UserError
from sysds_resnet.imagenet import IMAGENET_MEAN, IMAGENET_STD
from sysds_resnet.images.datasets import ArrayDataset, Dataset
from sysds_resnet.images.digits import open_digits
from sysds_resnet.images.encoded import EncodedDataset, list_images, open_images
from sysds_resnet.images.pixels.transforms import Augmentation
from sysds_resnet.images.sources.division import PartSource
from sysds_resnet.images.sources.layouts import Layout, open_source
from sysds_resnet.images.sources.photos import photos_folder
from sysds_resnet.images.sources.shards import ShardSource
from sysds_resnet.images.synthetic import SyntheticDataset

__all__ = [
    "BUILT_IN",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "ArrayDataset",
    "Augmentation",
    "Dataset",
    "EncodedDataset",
    "Layout",
    "SyntheticDataset",
    "list_images",
    "open_dataset",
    "open_images",
]

DEFAULT_AUGMENTATION = Augmentation()
BUILT_IN = ("digits", "synthetic", "photos")
"""The names of the data sets that need no files of the user's."""


def open_dataset(
    spec: str | os.PathLike[str],
    split: Literal["train", "val"],
    *,
    image_size: int | None = None,
    resize_size: int | None = None,
    augmentation: Augmentation | None = DEFAULT_AUGMENTATION,
    seed: int = 0,
    num_images: int | None = None,
    num_classes: int | None = None,
    layout: Layout | None = None,
    val_split: float | None = None,
    split_seed: int = 0,
) -> Dataset:
    """Opens one split of a data set.

    Args:
        spec: The data set: "digits" (scikit-learn's handwritten digits), "synthetic" (patterns with noise),
            "photos" (crops of photographs as JPEG files, which `photos_folder` makes), or the path or URL of
            a data set in one of the layouts that `open_source` lists. A folder that is itself called digits
            is opened as "./digits".
        split: The split, "train" or "val".
        image_size: The side of the square images in pixels; None means 32 for digits and synthetic, else 224.
        resize_size: The shorter side of validation images in pixels before the centre crop; None means 256
            for an `image_size` of 224, and in proportion for others.
        augmentation: The augmentation of training images; None means that they are preprocessed like
            validation images. Digits and synthetic images are not augmented.
        seed: The seed of the augmentation and of the synthetic images, at least 0. The split of the digits
            does not depend on it, so that runs with different seeds are validated on the same images.
        num_images: The number of synthetic images in this split; None means 256 for train, 64 for val.
        num_classes: The number of synthetic classes; None means 10.
        layout: The layout of the data set at a path; None means the first one that the files show signs of.
        val_split: The share of the training images of a data set at a path that is for validation instead, of
            each class; None means that the data set has validation images of its own.
        split_seed: The seed of the choice of this share, at least 0. Like that of the digits, the division
            does not depend on `seed`.

    Raises:
        UserError: If an option is out of range or does not suit the data set, or if the folder is missing,
            empty or laid out otherwise.
    """
    spec = os.fspath(spec)
    if split not in ("train", "val"):
        raise UserError(f"split: found {split!r}, expected 'train' or 'val': choose one of the two")
    if image_size is not None and image_size < 1:
        raise UserError(f"image_size: found {image_size}, expected at least 1 pixel: choose a larger size")
    if seed < 0:
        raise UserError(f"seed: found {seed}, expected an integer of at least 0: choose another seed")
    if spec != "synthetic":
        for name, value in (("num_images", num_images), ("num_classes", num_classes)):
            if value is not None:
                raise UserError(
                    f"{name}: found {value} for data set {spec!r}, expected nothing, as its files decide: "
                    "leave it out, or use the data set synthetic"
                )
    if spec in ("digits", "synthetic"):
        for name, value, default in (
            ("augmentation", augmentation or DEFAULT_AUGMENTATION, DEFAULT_AUGMENTATION),
            ("resize_size", resize_size, None),
            ("layout", layout, None),
            ("val_split", val_split, None),
        ):
            if value != default:
                raise UserError(
                    f"{name}: found {value} for {spec}, expected none, as it takes none: leave it out"
                )
    if spec == "digits":
        return open_digits(split, image_size=image_size)
    if spec == "synthetic":
        return SyntheticDataset(
            split, image_size=image_size, seed=seed, num_images=num_images, num_classes=num_classes
        )
    source = open_source(photos_folder() if spec == "photos" else spec, split, layout, val_split, split_seed)
    shards = source.whole if isinstance(source, PartSource) else source
    return EncodedDataset(
        source,
        image_size=image_size,
        resize_size=resize_size,
        augmentation=augmentation if split == "train" else None,
        seed=seed,
        **({"mean": shards.mean, "std": shards.std} if isinstance(shards, ShardSource) else {}),
    )
