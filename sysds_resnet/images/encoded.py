"""Data sets whose images are decoded each time they are asked for."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from copy import copy
from pathlib import Path

import numpy as np

from sysds_resnet.errors import UserError, one_line
from sysds_resnet.imagenet import DEFAULT_IMAGE_SIZE, IMAGENET_MEAN, IMAGENET_STD, default_resize_size
from sysds_resnet.images.pixels.decode import Picture
from sysds_resnet.images.pixels.transforms import (
    Augmentation,
    Purpose,
    eval_transform,
    sample_rng,
    train_transform,
)
from sysds_resnet.images.sources.base import FileSource, Source
from sysds_resnet.images.sources.files import IMG_EXTENSIONS
from sysds_resnet.images.sources.walk import walk_images
from sysds_resnet.system.files import user_path

MEASURED = 32  # images whose sides `typical_side` looks at


class EncodedDataset:
    """A data set that decodes the images of a source and brings them to one size.

    Args:
        source: The source of the encoded images.
        image_size: The side of the square images in pixels; None means 224.
        augmentation: The augmentation of training images; None means the evaluation preprocessing.
        seed: The seed of the augmentation, at least 0.
        resize_size: The shorter side in pixels before the centre crop; None means 256 for an `image_size` of
            224, and in proportion for others.
        mean: The per-channel mean in units of 0..255, of shape (3,).
        std: The per-channel standard deviation in units of 0..255, of shape (3,).

    Attributes:
        resize_size: The shorter side in pixels before the centre crop, as given or by default.
    """

    channels = 3
    decodes = True

    def __init__(
        self,
        source: Source,
        *,
        image_size: int | None = None,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        resize_size: int | None = None,
        mean: np.ndarray = IMAGENET_MEAN,
        std: np.ndarray = IMAGENET_STD,
    ) -> None:
        size = DEFAULT_IMAGE_SIZE if image_size is None else image_size
        self._source = source
        self.labels = source.labels
        self.classes = source.classes
        self.notes = source.notes
        self.num_classes = len(self.classes)
        self.image_size = (size, size)
        self.mean = mean.copy()
        self.std = std.copy()
        self._augmentation = augmentation
        self._seed = seed
        self.resize_size = default_resize_size(size) if resize_size is None else resize_size

    def for_training(self, image_size: int, augmentation: Augmentation) -> EncodedDataset:
        """Gives the same images in another size and with another augmentation."""
        other = copy(self)
        other.image_size = (image_size, image_size)
        other._augmentation = augmentation
        return other

    def typical_side(self) -> int | None:
        """Gives the median of the first images' shorter sides in pixels; None if they are unreadable."""
        sides = []
        for index in range(min(MEASURED, len(self))):
            with suppress(UserError), self.open(index) as picture:
                sides.append(min(picture.height, picture.width))
        return int(np.median(sides)) if sides else None

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, index: int) -> str:
        """Gives the path of the file of sample `index`, with the sample's place if the file has several."""
        return self._source.name(index)

    def relative_name(self, index: int) -> str:
        """Gives the name of sample `index` without the data set's folder, which stays when that is moved."""
        return self._source.relative_name(index)

    def files(self) -> Iterable[str]:
        """Gives the paths of the files that samples are read from."""
        return self._source.files()

    def image(self, index: int, epoch: int) -> np.ndarray:
        """Gives sample `index` as it is seen in `epoch`, uint8 of shape (H, W, 3).

        Raises:
            UserError: If it cannot be read as an image.
        """
        with self.open(index) as picture:
            if self._augmentation is None:
                return eval_transform(picture, self.image_size[0], self.resize_size)
            rng = sample_rng(self._seed, Purpose.AUGMENT, epoch, index)
            return train_transform(picture, self.image_size[0], rng, self._augmentation)

    @contextmanager
    def open(self, index: int) -> Iterator[Picture]:
        """Gives the image file of sample `index`, not yet decoded; errors in the `with` name the class."""
        try:
            yield Picture(self._source.read(index), self.name(index))
        except UserError as error:
            if not self.classes:
                raise
            raise UserError(f"class {self.classes[self.labels[index]]}, {error}") from error


def open_images(
    path: str | os.PathLike[str], *, image_size: int | None = None, resize_size: int | None = None
) -> EncodedDataset:
    """Opens the image files at a path as a data set without labels, for prediction.

    The files are those that `list_images(path)` finds; the sizes are as in `EncodedDataset`.

    Raises:
        UserError: If there is nothing at `path`, or no image in the folder.
    """
    paths = [str(name) for name in list_images(path)]
    return open_files(paths, image_size=image_size, resize_size=resize_size)


def open_files(
    paths: Sequence[str], *, image_size: int | None = None, resize_size: int | None = None
) -> EncodedDataset:
    """Opens image files as a data set without labels, in their order.

    Its labels are -1, it has no classes, and its images get the evaluation preprocessing.
    """
    source = FileSource(paths, np.full(len(paths), -1), [])
    return EncodedDataset(source, image_size=image_size, resize_size=resize_size)


def list_images(path: str | os.PathLike[str]) -> list[Path]:
    """Lists the image files at `path`: the file itself, whatever its ending, or all in a folder and below.

    Returns:
        The paths, sorted as strings, at least one.

    Raises:
        UserError: If there is nothing at `path`, or no image in the folder.
    """
    root = user_path(path)
    try:
        if stat.S_ISREG(mode := root.stat().st_mode):
            return [root]
        reason = None if stat.S_ISDIR(mode) else "no regular file"
    except (OSError, ValueError) as error:  # ValueError: the name has a zero byte
        missing = isinstance(error, FileNotFoundError | NotADirectoryError)
        reason = "nothing" if missing else one_line(error)
    if reason:
        raise UserError(
            f"images {root}: found {reason}, expected an image or a folder of images: check the path"
        )
    found = walk_images(root)
    if not found:
        raise UserError(
            f"images {root}: found no image file, expected some ending in {' '.join(IMG_EXTENSIONS)}: "
            "give another folder"
        )
    return [Path(name) for name in sorted(found)]
