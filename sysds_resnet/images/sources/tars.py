"""The layout with images in tar files."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from sysds_resnet.errors import NoSuchSplit, UserError, one_line
from sysds_resnet.images.pixels.limits import check_bytes
from sysds_resnet.images.sources.base import below
from sysds_resnet.images.sources.files import Split, find_files
from sysds_resnet.images.sources.labels import LabelColumn, Labelled, assign_labels
from sysds_resnet.images.sources.tar_members import Members, read_members
from sysds_resnet.images.sources.walk import counts
from sysds_resnet.system.texts import Texts


def open_tar(root: Path, split: Split) -> TarSource:
    """Opens a split of train*.tar and val*.tar.

    All headers are read once, which takes minutes for a million images.
    """
    found = {name: find_files(root, name, ".tar") for name in ("train", "val")}
    files = found[split].files
    if not files:
        raise NoSuchSplit(f"data set {root}: found no {split}*.tar, expected some: add them")
    members = {name: [read_members(path) for path in some.files] for name, some in found.items()}
    own = members[split]
    left_out = sum((part.left_out for part in own), Counter())
    if not any(len(part.keys) for part in own):
        seen = f" but {counts(left_out)}" if left_out else ""
        raise UserError(
            f"data set {root}: found no images in {split}*.tar{seen}, expected KEY.jpg and KEY.cls: add them"
        )
    columns = {
        name: [_labels(path, part) for path, part in zip(found[name].files, some, strict=True)]
        for name, some in members.items()
        if some
    }
    labels = assign_labels(root, columns, split)
    notes = [*found["train"].notes, *found["val"].notes, *labels.notes]
    if empty := [path.name for path, part in zip(files, own, strict=True) if not len(part.keys)]:
        notes.append(f"data set {root}: {len(empty)} tar files have no images, the first: {empty[0]}")
    if left_out:
        notes.append(f"data set {root}: left out of {split}*.tar: {counts(left_out)}")
    if cut := [path.name for path, part in zip(files, own, strict=True) if not part.complete]:
        notes.append(
            f"data set {root}: {len(cut)} tar files lack the mark at their end, as if cut off, the first: "
            f"{cut[0]}"
        )
    return TarSource([str(path) for path in files], own, labels, root, notes)


def trouble_with_tars(root: Path) -> str | None:
    """Says why the tar files are no data set, such as archives without labels; None if they are one."""
    try:
        for name in ("train", "val"):
            files = find_files(root, name, ".tar").files
            if files and not any(len(read_members(path).keys) for path in files):
                return f"{files[0]}: found no images in it"
    except UserError as error:
        return str(error)
    return None


def _labels(path: Path, members: Members) -> LabelColumn:
    return LabelColumn(members.labels, lambda i: f"{path}/{members.keys[i]}")


class TarSource:
    """A source of images in tar files by WebDataset's convention.

    A file has members KEY.jpg and KEY.cls, or KEY.json with a label.

    Args:
        files: The paths of the tar files, uncompressed.
        members: The images and labels in each file.
        labels: The labels of all images, and the names of the classes.
        root: The folder of the data set, which relative names leave out.
        notes: The lines for people to read on what was left out of the data set or is odd in it.
    """

    def __init__(
        self,
        files: Sequence[str],
        members: Sequence[Members],
        labels: Labelled,
        root: str | Path,
        notes: Sequence[str] = (),
    ) -> None:
        self._files = list(files)
        self._root = str(root)
        self.labels, self.classes, self.notes = labels.labels, labels.classes, list(notes)
        self._shards = np.repeat(np.arange(len(files), dtype=np.int32), [len(part.keys) for part in members])
        self._offsets, self._sizes = np.concatenate([part.places for part in members]).T
        self._keys = Texts.joined([part.keys for part in members])

    def name(self, index: int) -> str:
        """Gives the file of sample `index`, and the name of the member without its ending."""
        return f"{self._files[self._shards[index]]}/{self._keys[index]}"

    def relative_name(self, index: int) -> str:
        """Gives the name of sample `index` without the folder of the data set."""
        return below(self._root, self.name(index))

    def files(self) -> Iterable[str]:
        """Gives the paths of the tar files."""
        return self._files

    def read(self, index: int) -> bytes:
        """Reads the bytes of sample `index`'s member."""
        size = int(self._sizes[index])
        check_bytes(size, self.name(index))
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
