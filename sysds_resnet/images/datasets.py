"""The `Dataset` protocol, which every data set fulfils, and the data set that lies in memory."""

from collections.abc import Iterable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from sysds_resnet.classes.labels import class_labels
from sysds_resnet.errors import UserError
from sysds_resnet.system.checks import as_array


@runtime_checkable
class Dataset(Protocol):
    """A set of labelled images of one size. Reading it is thread-safe and keeps no state.

    Attributes:
        classes: The names of the classes; the label of a class is its position here. Empty when unlabelled.
        num_classes: The number of classes.
        channels: The number of channels C, 3 for every data set that `open_dataset` opens.
        image_size: The size (H, W) of the images in pixels.
        mean: The per-channel mean for normalisation, float64 of shape (C,), in units of 0..255.
        std: The per-channel standard deviation for normalisation, float64 of shape (C,), in units of 0..255.
        labels: The 0-based labels, int64 of shape (n,); -1 where there is none.
        notes: The lines for people to read on what was left out of the data set or is odd in it.
        decodes: Whether `image` decodes a file, which is enough work to have other processes do it.
    """

    classes: list[str]
    num_classes: int
    channels: int
    image_size: tuple[int, int]
    mean: np.ndarray
    std: np.ndarray
    labels: np.ndarray
    notes: list[str]
    decodes: bool

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """Gives the name of sample `index` in errors and tables."""
        ...

    def relative_name(self, index: int) -> str:
        """Gives the name of sample `index` without the data set's folder, which stays when that is moved."""
        ...

    def files(self) -> Iterable[str]:
        """Gives the paths of the files that samples are read from; none if they are not read from files."""
        ...

    def image(self, index: int, epoch: int) -> np.ndarray:
        """Gives sample `index` as it is seen in `epoch`, of shape (H, W, C).

        It is uint8; only an `ArrayDataset` of floating point gives that.

        The augmentation depends only on the data set's seed, `epoch` and `index`.
        """
        ...


class ArrayDataset:
    """A data set of images that lie in memory, without augmentation."""

    decodes = False

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        classes: Sequence[str],
        *,
        mean: np.ndarray,
        std: np.ndarray,
    ) -> None:
        """Wraps arrays; a NumPy array of uint8 images is not copied.

        Args:
            images: The images, of shape (n, H, W, C): integers from 0 to 255, or floating point, which is
                not rounded.
            labels: The classes of the images, in one of the forms that `class_labels` takes.
            classes: The names of the classes.
            mean: The per-channel mean in units of 0..255, of shape (C,).
            std: The per-channel standard deviation in units of 0..255, of shape (C,), above 0.

        Raises:
            UserError: If a shape or type is wrong, there are no images, or a label is out of range.
        """
        images = as_array("images", images)
        if images.dtype.kind in "iu" and images.size and images.min() >= 0 and images.max() <= 255:
            images = images.astype(np.uint8, copy=False)
        right = images.dtype == np.uint8 or images.dtype.kind == "f"
        if images.ndim != 4 or not right or images.size == 0:
            raise UserError(
                f"images: found {images.dtype} of shape {images.shape}, expected uint8 or floating point of "
                "shape (n, H, W, C) with n at least 1: convert the array"
            )
        self._images = images
        self.labels = class_labels(labels, len(images), len(classes))
        self.notes: list[str] = []
        self.classes = list(classes)
        self.num_classes = len(self.classes)
        self.image_size = (images.shape[1], images.shape[2])
        self.channels = images.shape[3]
        self.mean = per_channel("mean", mean, self.channels)
        self.std = per_channel("std", std, self.channels)

    def __len__(self) -> int:
        return len(self._images)

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Gives all images, of shape (n, H, W, C), and their labels, int64 of shape (n,)."""
        return self._images, self.labels

    def name(self, index: int) -> str:
        """Gives the name of sample `index`, such as image 7."""
        return f"image {index}"

    relative_name = name

    def files(self) -> Iterable[str]:
        """Gives no paths, since the images are in memory."""
        return []

    def image(self, index: int, epoch: int) -> np.ndarray:
        """Gives sample `index`, of shape (H, W, C), which is the same in every epoch."""
        return self._images[index]


def per_channel(name: str, values: np.ndarray, channels: int) -> np.ndarray:
    """Gives `values` as float64 of shape (channels,), or raises a UserError that calls them `name`."""
    result = np.asarray(values, dtype=np.float64)
    if result.shape != (channels,):
        raise UserError(f"{name}: found shape {result.shape}, expected ({channels},): give one per channel")
    return result
