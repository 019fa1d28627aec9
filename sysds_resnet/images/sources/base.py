"""Where the bytes of labelled images come from.

A source knows its samples' names, labels and bytes, and nothing of pictures. It is sent to reading processes,
so it holds paths and positions in compact arrays and opens files where it reads.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import pyarrow as pa

from sysds_resnet.classes.file import is_text
from sysds_resnet.errors import UserError, one_line
from sysds_resnet.images.pixels.limits import check_bytes
from sysds_resnet.system.files import open_regular


@runtime_checkable
class Source(Protocol):
    """n encoded images. Reading is thread-safe.

    Attributes:
        labels: 0-based labels, int64 of shape (n,); -1 where there is none.
        classes: names of the classes; the label of a class is its position here. Empty when unlabelled.
        notes: lines on what was left out of the data set or is odd in it, for people to see.
    """

    labels: np.ndarray
    classes: list[str]
    notes: list[str]

    def name(self, index: int) -> str:
        """Give what errors and tables call sample `index`: a path, with its place in a file of many."""
        ...

    def relative_name(self, index: int) -> str:
        """Give the same without the folder of the data set: what stays when it is moved."""
        ...

    def files(self) -> Iterable[str]:
        """Give the paths of the files of this machine that samples are read from, in the samples' order."""
        ...

    def read(self, index: int) -> bytes | np.ndarray:
        """Give the file of sample `index`, or uint8 of shape (H, W, 3) where images are stored as such.

        Raises:
            UserError: it cannot be read.
        """
        ...


def below(root: str, path: str) -> str:
    """Give the part of a path below a folder; all of it if it lies elsewhere."""
    return path.removeprefix(root.rstrip(os.sep) + os.sep)


def locate(ends: np.ndarray, index: int) -> tuple[int, int]:
    """Find sample `index` of files or groups of many: which of them, and the place in it, from 0.

    Args:
        ends: of each, how many samples it and those before it have.
        index: over all of them.
    """
    part = int(np.searchsorted(ends, index, side="right"))
    return part, index - (int(ends[part - 1]) if part else 0)


class FileSource:
    """Images in files of their own.

    Args:
        paths: n files.
        labels: integers of shape (n,).
        classes: names of the classes.
        root: folder of the data set.
        notes: see `Source`.

    Raises:
        UserError: a path is no text in UTF-8, which results and tables could not hold.
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
            self._paths = pa.array(paths, pa.large_string())  # a fifth of a list's memory, and quick to send
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
        """The path."""
        return self._paths[index].as_py()

    def relative_name(self, index: int) -> str:
        """The path below the folder of the data set."""
        return below(self._root, self.name(index))

    def files(self) -> Iterable[str]:
        """A file for each image."""
        return (path.as_py() for path in self._paths)

    def read(self, index: int) -> bytes:
        """The file's bytes."""
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
    """Images in one array, which may be memory-mapped.

    Args:
        images: uint8 of shape (n, H, W, 3).
        labels: integers of shape (n,).
        classes: names of the classes.
        path: what samples are named after.
        notes: see `Source`.
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
        """PATH, image I."""
        return f"{self._path}, image {index}"

    def relative_name(self, index: int) -> str:
        """FILE, image I."""
        return f"{os.path.basename(self._path)}, image {index}"

    def files(self) -> Iterable[str]:
        """The array's file."""
        return [self._path]

    def read(self, index: int) -> np.ndarray:
        """The image."""
        return self._images[index]


class BytesSource:
    """Image files in memory, without labels.

    Args:
        names: of n images.
        files: bytes of each; None where there is no file.
    """

    def __init__(self, names: Sequence[str], files: Sequence[bytes | None]) -> None:
        self._names, self._files = names, files
        self.labels = np.full(len(files), -1)
        self.classes: list[str] = []
        self.notes: list[str] = []

    def name(self, index: int) -> str:
        """As given."""
        return self._names[index]

    relative_name = name

    def files(self) -> Iterable[str]:
        """None: the images are in memory."""
        return []

    def read(self, index: int) -> bytes:
        """The file's bytes."""
        data = self._files[index]
        if data is None:
            raise UserError(
                f"image {self.name(index)}: found no bytes, expected an image file's: fill or drop the row"
            )
        return bytes(data)
