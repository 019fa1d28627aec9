"""The layout of prepared data sets: shards of images of one size, which are memory-mapped, not decoded.

A folder has manifest.json, and for each shard SPLIT-00000-images.npy, uint8 of shape (n, H, W, 3), and
SPLIT-00000-labels.npy, int64 of shape (n,). `sysds_resnet.prepare` writes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sysds_resnet.errors import NoSuchSplit, UserError, one_line
from sysds_resnet.images.sources.base import locate
from sysds_resnet.images.sources.files import Split
from sysds_resnet.images.sources.manifest import MANIFEST, PROGRESS, FileRecord, Manifest, shard_files
from sysds_resnet.system.files import write_whole


@dataclass(frozen=True)
class Shard:
    """A shard that is written.

    Attributes:
        images: The number of images in it.
        files: The records of its files, by name in the folder.
    """

    images: int
    files: dict[str, FileRecord]

    @classmethod
    def write(cls, root: Path, split: Split, number: int, images: np.ndarray, labels: np.ndarray) -> Shard:
        """Writes both files of a shard."""
        arrays = dict(zip(shard_files(split, number), (images, labels), strict=True))
        write_whole({root / name: _saver(array) for name, array in arrays.items()})
        return cls(len(labels), {name: FileRecord.of(root / name) for name in arrays})


def _saver(array: np.ndarray) -> Callable[[Path], None]:
    def save(path: Path) -> None:
        with open(path, "wb") as file:  # np.save would add .npy to the name
            np.save(file, array, allow_pickle=False)

    return save


def is_prepared(root: Path) -> bool:
    """Tells whether this is the folder of a prepared data set, finished or not."""
    return (root / MANIFEST).is_file() or (root / PROGRESS).is_file()


def open_shards(root: Path, split: Split) -> ShardSource:
    """Opens a split of a prepared data set, checking the sizes of its files.

    `sysds_resnet.verify` checks all bytes.
    """
    if not (root / MANIFEST).is_file():
        raise UserError(
            f"data set {root}: found no {MANIFEST}, expected a data set that is prepared to its end: run "
            "sysds_resnet.prepare again as before, and it goes on"
        )
    manifest = Manifest.read(root / MANIFEST)
    counts, names = shards_of(manifest, root, split)
    check_sizes(manifest, root, names, lambda name: _size(root / name))
    labels = np.concatenate(
        [_load(root / name, (n,), np.int64) for (_, name), n in zip(names, counts, strict=True)]
    )
    check_labels(labels, manifest, root, split)
    return ShardSource([str(root / name) for name, _ in names], counts, labels, manifest)


def shards_of(manifest: Manifest, root: str | Path, split: Split) -> tuple[list[int], list[tuple[str, str]]]:
    """Gives the numbers of images, and the names of the two files, of a split's shards.

    Raises a NoSuchSplit if the split has none. `root` is what errors call the data set.
    """
    counts = manifest.shards.get(split, [])
    if not counts:
        raise NoSuchSplit(f"data set {root}: found no {split} images, expected some: prepare that split too")
    return counts, [shard_files(split, number) for number in range(len(counts))]


def check_sizes(
    manifest: Manifest, root: str | Path, names: list[tuple[str, str]], size: Callable[[str], int]
) -> None:
    """Raises a UserError unless the files of shards, of which `size` gives the bytes, are as prepared."""
    for name in (name for pair in names for name in pair):
        found, expected = size(name), manifest.files[name].bytes
        if found != expected:
            raise UserError(
                f"{root}/{name}: found {found} bytes, expected {expected} as in {MANIFEST}: restore the file "
                "or prepare the data set anew"
            )


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def no_such_array(
    name: str | Path, error: Exception, dtype: type | np.dtype, shape: tuple[int, ...]
) -> UserError:
    """Gives the error for a file that does not hold the array that was prepared."""
    return UserError(
        f"{name}: found no such array as was prepared ({one_line(error)}), expected {np.dtype(dtype)} of "
        f"shape {shape}: restore the file or prepare the data set anew"
    )


def check_labels(labels: np.ndarray, manifest: Manifest, root: str | Path, split: Split) -> None:
    """Raises a UserError unless all labels are those of classes."""
    if labels.size and not 0 <= labels.min() <= labels.max() < len(manifest.classes):
        raise UserError(
            f"data set {root}: found {split} labels from {labels.min()} to {labels.max()}, expected 0 to "
            f"{len(manifest.classes) - 1}: restore the files or prepare the data set anew"
        )


def _load(path: str | Path, shape: tuple[int, ...], dtype: type, **options: str) -> np.ndarray:
    try:
        array = np.load(path, allow_pickle=False, **options)
        if array.shape != shape or array.dtype != dtype:
            raise ValueError(f"{array.dtype} of shape {array.shape}")
    except Exception as error:
        # Any Exception is caught since NumPy parses the header as Python, which may raise anything.
        raise no_such_array(path, error, dtype, shape) from error
    return array


class ShardSource:
    """A source of images in shards.

    Args:
        paths: The paths of the files of images, one for each shard.
        counts: The number of images in each shard.
        labels: The labels of all images, integers of shape (sum of counts,).
        manifest: The manifest, for the sizes of the images, the classes, the mean and the standard deviation.

    Attributes:
        mean: The mean of each channel, in units of 0..255, of shape (3,).
        std: The standard deviation of each channel, in units of 0..255, of shape (3,).
    """

    def __init__(
        self, paths: Sequence[str], counts: Sequence[int], labels: np.ndarray, manifest: Manifest
    ) -> None:
        self._paths = list(paths)
        self._ends = np.cumsum(counts)
        self._shapes = [(n, *manifest.image_size, 3) for n in counts]
        self._arrays: dict[int, np.ndarray] = {}
        self.labels = labels.astype(np.int64)
        self.classes = manifest.classes
        self.notes: list[str] = []
        self.mean, self.std = np.array(manifest.mean), np.array(manifest.std)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_arrays": {}}  # mapped memory would be sent as a copy

    def name(self, index: int) -> str:
        """Gives the path of sample `index`'s shard, and the image's position in it."""
        shard, place = locate(self._ends, index)
        return f"{self._paths[shard]}, image {place}"

    def relative_name(self, index: int) -> str:
        """Gives the name of sample `index` without the folder of the data set."""
        return self.name(index).rpartition("/")[2]

    def files(self) -> Iterable[str]:
        """Gives the paths of the files of images."""
        return self._paths

    def read(self, index: int) -> np.ndarray:
        """Gives the pixels of sample `index`, uint8 of shape (H, W, 3)."""
        shard, place = locate(self._ends, index)
        if shard not in self._arrays:
            self._arrays[shard] = _load(self._paths[shard], self._shapes[shard], np.uint8, mmap_mode="r")
        return self._arrays[shard][place]
