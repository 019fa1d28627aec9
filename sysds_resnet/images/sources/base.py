"""The `Source` protocol for the bytes of labelled images, and sources in files, in one array and in memory.

A source knows the names, labels and bytes of its samples, and nothing of pixels. It is sent to the processes
that read, so it holds paths and positions in compact arrays and opens files only where it reads.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from sysds_resnet.classes.file import is_text
from sysds_resnet.errors import UserError, one_line
from sysds_resnet.images.pixels.limits import check_bytes
from sysds_resnet.system.files import open_regular
from sysds_resnet.system.texts import Texts


@runtime_checkable
class Source(Protocol):
    """A source of n encoded images, which several threads may read at once.

    Attributes:
        labels: The 0-based labels, int64 of shape (n,); -1 where there is none.
        classes: The names of the classes; the label of a class is its position here. Empty when unlabelled.
        notes: The lines for people to read on what was left out of the data set or is odd in it.
    """

    labels: np.ndarray
    classes: list[str]
    notes: list[str]

    def name(self, index: int) -> str:
        """Gives the name of sample `index` in errors and tables: a path, with its place in a file of many."""
        ...

    def relative_name(self, index: int) -> str:
        """Gives the name of sample `index` without the data set's folder, which stays when that is moved."""
        ...

    def files(self) -> Iterable[str]:
        """Gives the paths of the files of this machine that samples are read from, in the samples' order."""
        ...

    def read(self, index: int) -> bytes | np.ndarray:
        """Gives the file's bytes of sample `index`, or its pixels, uint8 of shape (H, W, 3), if stored so.

        Raises:
            UserError: If it cannot be read.
        """
        ...


def below(root: str, path: str) -> str:
    """Gives the part of a path below a folder; all of it if it lies elsewhere."""
    return path.removeprefix(root.rstrip(os.sep) + os.sep)


def locate(ends: np.ndarray, index: int) -> tuple[int, int]:
    """Finds a sample in files or groups of many: gives the number of the file or group, and the place in it.

    Args:
        ends: For each file or group, the number of samples in it and all those before it.
        index: The position among all samples, from 0.
    """
    part = int(np.searchsorted(ends, index, side="right"))
    return part, index - (int(ends[part - 1]) if part else 0)


class FileSource:
    """A source of images in files of their own.

    Args:
        paths: The paths of the n files.
        labels: The labels, integers of shape (n,).
        classes: The names of the classes.
        root: The folder of the data set, which relative names leave out.
        notes: The lines for people to read on what was left out of the data set or is odd in it.

    Raises:
        UserError: If a path is no text in UTF-8, which results and tables could not hold.
    """

    def __init__(
        self,
        paths: Sequence[str],
        labels: np.ndarray,
        classes: Sequence[str],
        root: str | Path = "",
        notes: Sequence[str] = (),
    ) -> None:
        try:
            self._paths = Texts(paths)
        except UnicodeEncodeError as error:
            wrong = next(path for path in paths if not is_text(path))
            raise UserError(
                f"image {wrong!r}: found a name that is not UTF-8, expected one that is: rename the file or "
                "its folder"
            ) from error
        self.notes = list(notes)
        self._root = os.fspath(root)
        self.labels = np.asarray(labels, dtype=np.int64)
        self.classes = list(classes)

    def name(self, index: int) -> str:
        """Gives the path of sample `index`."""
        return self._paths[index]

    def relative_name(self, index: int) -> str:
        """Gives the path of sample `index` below the folder of the data set."""
        return below(self._root, self.name(index))

    def files(self) -> Iterable[str]:
        """Gives the path of each image."""
        return self._paths

    def read(self, index: int) -> bytes:
        """Reads the bytes of sample `index`'s file."""
        path = self.name(index)
        try:
            with open_regular(path) as file:
                check_bytes(os.fstat(file.fileno()).st_size, path)
                return file.read()
        except (OSError, ValueError) as error:  # ValueError: the name has a zero byte
            raise UserError(
                f"image {path}: found {one_line(error)}, expected a file that can be read: restore or "
                "remove it"
            ) from error


class ArraySource:
    """A source of images in one array, which may be memory-mapped.

    Args:
        images: The images, uint8 of shape (n, H, W, 3).
        labels: The labels, integers of shape (n,).
        classes: The names of the classes.
        path: The path of the array's file, after which samples are named.
        notes: The lines for people to read on what was left out of the data set or is odd in it.
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        classes: Sequence[str],
        path: str,
        notes: Sequence[str] = (),
    ) -> None:
        self.notes = list(notes)
        self._images = images
        self.labels = np.asarray(labels, dtype=np.int64)
        self.classes = list(classes)
        self._path = path

    def name(self, index: int) -> str:
        """Gives the path of the array and the position of the image in it."""
        return f"{self._path}, image {index}"

    def relative_name(self, index: int) -> str:
        """Gives the file name of the array and the position of the image in it."""
        return f"{os.path.basename(self._path)}, image {index}"

    def files(self) -> Iterable[str]:
        """Gives the path of the array's file."""
        return [self._path]

    def read(self, index: int) -> np.ndarray:
        """Gives the pixels of sample `index`, uint8 of shape (H, W, 3)."""
        return self._images[index]


class BytesSource:
    """A source of image files in memory, without labels.

    Args:
        names: The names of the n images.
        files: The bytes of each image's file; None where there is no file.
    """

    def __init__(self, names: Sequence[str], files: Sequence[bytes | None]) -> None:
        self._names, self._files = names, files
        self.labels = np.full(len(files), -1)
        self.classes: list[str] = []
        self.notes: list[str] = []

    def name(self, index: int) -> str:
        """Gives the name that sample `index` was given."""
        return self._names[index]

    relative_name = name

    def files(self) -> Iterable[str]:
        """Gives no paths, since the images are in memory."""
        return []

    def read(self, index: int) -> bytes:
        """Gives the bytes of sample `index`'s file."""
        data = self._files[index]
        if data is None:
            raise UserError(
                f"image {self.name(index)}: found no bytes, expected an image file's: fill or drop the row"
            )
        return bytes(data)
