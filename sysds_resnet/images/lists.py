"""Lists of image files with their labels."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from sysds_resnet.errors import NoSuchSplit, UserError
from sysds_resnet.files import read_text
from sysds_resnet.images.files import IMG_EXTENSIONS, Split
from sysds_resnet.images.labels import LabelColumn, assign_labels
from sysds_resnet.images.sources import FileSource

_List = tuple[list[str], list[str], list[int]]
"""Paths, labels, and numbers of lines."""


def open_lists(root: Path, split: Split) -> FileSource:
    """Open train_list.txt and val_list.txt with lines "path label", paths relative to PATH or to PATH/train.

    Classes are called as in classes.txt, else by their labels if these are no numbers, else by the folder in
    which all images of a class lie, else by their numbers.
    """
    files: dict[Split, Path] = {name: root / f"{name}_list.txt" for name in ("train", "val")}
    listed = {name: _read_list(path) for name, path in files.items() if path.exists()}
    if split not in listed:
        raise NoSuchSplit(
            f"data set {root}: found no {split}_list.txt, expected lines 'relative/path label' in it: add it"
        )

    def column(name: Split) -> LabelColumn:
        _, labels, lines = listed[name]
        return LabelColumn(labels, lambda i: f"{files[name]}, line {lines[i]}")

    labels = {name: assign_labels(root, {n: [column(n)] for n in listed}, name) for name in listed}
    own = labels[split]
    folders = common_folders(root, {name: (listed[name][0], labels[name].labels) for name in listed})
    classes = own.classes
    if not own.named:
        by_folder = [folders.get(i, "") for i in range(len(classes))]
        classes = by_folder if all(by_folder) and len(set(by_folder)) == len(classes) else classes
    paths = listed[split][0]
    notes = own.notes + note_on_repeats(root, paths, own.labels)
    below = not (root / paths[0]).exists() and (root / split / paths[0]).exists()
    folder = root / split if below else root
    return FileSource([os.path.join(folder, name) for name in paths], own.labels, classes, root, notes)


def _read_list(path: Path) -> _List:
    paths, labels, lines = [], [], []
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        name, *label = line.strip().rsplit(maxsplit=1)
        if not label or label[0].lower().endswith(IMG_EXTENSIONS):
            raise UserError(
                f"{path}, line {number}: found {line[:80]!r}, expected 'relative/path label' with a label "
                "from 0, or the name of a class: correct the line"
            )
        paths.append(name)
        labels.append(label[0])
        lines.append(number)
    if not paths:
        raise UserError(f"{path}: found no lines, expected 'relative/path label': fill the list")
    return paths, labels, lines


def note_on_repeats(root: Path, paths: Sequence[str], labels: np.ndarray) -> list[str]:
    """The note that images are listed more than once, if any are."""
    listed = pd.DataFrame({"path": paths, "label": labels})
    again = listed[listed["path"].duplicated()]
    if not len(again):
        return []
    others = listed.drop_duplicates()["path"].duplicated().sum()
    differ = f", {others} with different labels" if others else ""
    return [
        f"data set {root}: {len(again)} images are listed again{differ}, the first: {again['path'].iloc[0]}"
    ]


def common_folders(root: Path, listed: Mapping[str, tuple[Sequence[str], np.ndarray]]) -> dict[int, str]:
    """The folder of each class's images, where each class has one of its own.

    Args:
        root: folder of the data set.
        listed: of each split, the paths of the images and their labels.

    Raises:
        UserError: a folder is that of one class in training, and of another in validation.
    """
    names: dict[int, str] = {}
    for paths, labels in listed.values():
        folders = {
            (label, os.path.basename(os.path.dirname(path)))
            for path, label in zip(paths, labels.tolist(), strict=True)
        }
        if not len(folders) == len({label for label, _ in folders}) == len({name for _, name in folders}):
            continue  # such as a flat val/
        known = {name: label for label, name in names.items()}
        for label, name in folders:
            if known.get(name, label) != label:
                raise UserError(
                    f"data set {root}: found label {known[name]} for all training images in {name}/ and "
                    f"{label} for all validation images in {name}/, expected the same: correct the labels"
                )
        names.update(folders)
    return names
