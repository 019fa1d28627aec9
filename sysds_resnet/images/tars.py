"""Images in tar files."""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from sysds_resnet.errors import NoSuchSplit, UserError, one_line
from sysds_resnet.images.files import IMG_EXTENSIONS, Split, find_files, number_labels
from sysds_resnet.images.sources import below


def open_tar(root: Path, split: Split) -> TarSource:
    """Open train*.tar and val*.tar, reading all headers once: of a million images, minutes."""
    files = find_files(root, split, ".tar")
    if not files:
        raise NoSuchSplit(f"data set {root}: found no {split}*.tar, expected some: add them")
    shards, offsets, sizes, keys, labels = [], [], [], [], []
    for number, path in enumerate(files):
        for key, member, label in _members(path):
            shards.append(number)
            offsets.append(member.offset_data)
            sizes.append(member.size)
            keys.append(key)
            labels.append(label)
    if not keys:
        raise UserError(
            f"data set {root}: found no images in {split}*.tar, expected KEY.jpg and KEY.cls: add them"
        )
    # the other split's labels stay unread: a data set whose splits differ in classes needs classes.txt
    own, classes = number_labels(root, {split: pd.Series(labels)}, split)
    return TarSource(
        [str(path) for path in files],
        np.array(shards, np.int32),
        np.array(offsets, np.int64),
        np.array(sizes, np.int64),
        keys,
        own,
        classes,
        root,
    )


def _members(path: Path) -> list[tuple[str, tarfile.TarInfo, int]]:
    """Name, place and label of each image in a tar file, in its order."""
    images: dict[str, tarfile.TarInfo] = {}
    labels: dict[str, int] = {}
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                if not member.isfile():
                    continue
                folder, _, name = member.name.rpartition("/")
                key, _, ending = name.partition(".")  # WebDataset: the ending begins at the first dot
                key = f"{folder}/{key}" if folder else key
                if f".{ending.lower()}" in IMG_EXTENSIONS:
                    images[key] = member
                elif ending == "cls":
                    labels[key] = int(archive.extractfile(member).read())
                elif ending == "json" and key not in labels:
                    found = json.loads(archive.extractfile(member).read())
                    if isinstance(found, dict) and isinstance(found.get("label"), int):
                        labels[key] = found["label"]
    except (OSError, tarfile.TarError, ValueError) as error:
        raise UserError(
            f"{path}: found a damaged tar file ({one_line(error)}), expected an uncompressed one with "
            "KEY.jpg and KEY.cls: write it again"
        ) from error
    without = next((key for key in images if key not in labels), None)
    if without is not None:
        raise UserError(f"{path}: found {without} without a label, expected {without}.cls: add it")
    return [(key, member, labels[key]) for key, member in images.items()]


class TarSource:
    """Images in tar files by WebDataset's convention: members KEY.jpg and KEY.cls, or KEY.json with a label.

    Args:
        files: tar files, uncompressed.
        shards: position in `files` of each image, of shape (n,).
        offsets: first byte of each image in its file.
        sizes: bytes of each image.
        keys: name of each image in its file.
        labels: integers of shape (n,).
        classes: names of the classes.
        root: folder of the data set.
    """

    def __init__(
        self,
        files: Sequence[str],
        shards: np.ndarray,
        offsets: np.ndarray,
        sizes: np.ndarray,
        keys: Sequence[str],
        labels: np.ndarray,
        classes: Sequence[str],
        root: str | Path,
    ) -> None:
        self._root = str(root)
        self._files = list(files)
        self.labels = np.asarray(labels, dtype=np.int64)
        self.classes = list(classes)
        self._shards, self._offsets, self._sizes = shards, offsets, sizes
        self._keys = pa.array(keys, pa.large_string())

    def name(self, index: int) -> str:
        """FILE/MEMBER."""
        return f"{self._files[self._shards[index]]}/{self._keys[index].as_py()}"

    def relative_name(self, index: int) -> str:
        """The same without the folder of the data set."""
        return below(self._root, self.name(index))

    def files(self) -> Iterable[str]:
        """The tar files."""
        return self._files

    def read(self, index: int) -> bytes:
        """The member's bytes."""
        size = int(self._sizes[index])
        try:
            descriptor = os.open(self._files[self._shards[index]], os.O_RDONLY)
            try:
                data = os.pread(descriptor, size, int(self._offsets[index]))
            finally:
                os.close(descriptor)
        except OSError as error:
            raise UserError(
                f"image {self.name(index)}: found {one_line(error)}, expected a tar file that can be read: "
                "restore it"
            ) from error
        if len(data) < size:
            raise UserError(
                f"image {self.name(index)}: found {len(data)} of {size} bytes, expected all: restore the tar "
                "file, which is cut off"
            )
        return data
