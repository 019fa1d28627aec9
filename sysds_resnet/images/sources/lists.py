"""The layout with lists of image files and their labels."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from sysds_resnet.classes.file import check_class_names, short
from sysds_resnet.errors import NoSuchSplit, UserError
from sysds_resnet.images.sources.base import FileSource
from sysds_resnet.images.sources.files import IMG_EXTENSIONS, Split
from sysds_resnet.images.sources.labels import LabelColumn, Labelled, assign_labels
from sysds_resnet.images.sources.tools import is_tool
from sysds_resnet.system.files import read_text

_List = tuple[list[str], list[str], list[int]]
"""The paths, the labels, and the numbers of their lines."""


def open_lists(root: Path, split: Split) -> FileSource:
    """Opens a split of train_list.txt and val_list.txt, with a path and a label in each line.

    Paths are relative to PATH, or to PATH/train or PATH/val. Classes are called as in classes.txt, else by
    their labels if these are no numbers, else by the folder in which all images of a class lie, else by their
    numbers.
    """
    files: dict[Split, Path] = {name: root / f"{name}_list.txt" for name in ("train", "val")}
    read = {name: _read_list(path) for name, path in files.items() if path.exists()}
    if split not in read:
        raise NoSuchSplit(
            f"data set {root}: found no {split}_list.txt, expected lines 'relative/path label' in it: add it"
        )
    listed = {name: some for name, (some, _) in read.items()}

    def column(name: Split) -> LabelColumn:
        _, labels, lines = listed[name]
        return LabelColumn(labels, lambda i: f"{files[name]}, line {lines[i]}")

    columns = {name: [column(name)] for name in listed}
    labels = {name: assign_labels(root, columns, name) for name in listed}
    folders = {name: _folder(root, name, some[0][0]) for name, some in listed.items()}
    paths = {name: [os.path.join(folders[name], path) for path in some[0]] for name, some in listed.items()}
    own = labels[split]
    by_label, notes = common_folders(root, {name: (listed[name][0], labels[name]) for name in listed})
    classes = own.classes
    if not own.named:
        by_folder = [by_label.get(i, "") for i in range(len(classes))]
        classes = by_folder if all(by_folder) and len(set(by_folder)) == len(classes) else classes
        check_class_names(classes, f"data set {root}")
    notes += [note for _, some in read.values() for note in some] + own.notes
    notes += notes_on_paths(root, paths, own.labels, split)
    return FileSource(paths[split], own.labels, classes, root, notes)


def _folder(root: Path, split: Split, path: str) -> Path:
    """Gives the folder at which the paths of a list start, as its first one shows."""
    below = not os.path.exists(root / path) and os.path.exists(root / split / path)
    return root / split if below else root


def _read_list(path: Path) -> tuple[_List, list[str]]:
    """Reads what a list holds, and gives notes on lines that are left out."""
    paths, labels, lines = [], [], []
    tools = []
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        name, label = _split_line(line.strip())
        is_image = name.lower().endswith(IMG_EXTENSIONS)
        if not label or label.lower().endswith(IMG_EXTENSIONS) or ("/" in label and not is_image):
            raise UserError(
                f"{path}, line {number}: found {line[:80]!r}, expected 'relative/path label' with a label "
                "from 0, or the name of a class: correct the line"
            )
        if is_tools(name):
            tools.append(name)
            continue
        paths.append(name)
        labels.append(label)
        lines.append(number)
    if not paths:
        raise UserError(f"{path}: found no lines, expected 'relative/path label': fill the list")
    return (paths, labels, lines), note_on_tools(path, tools)


def _split_line(line: str) -> tuple[str, str]:
    """Gives the path and the label of a line; where a tab is after the path, the label may have spaces."""
    name, tab, label = line.rpartition("\t")
    if tab and name.rstrip().lower().endswith(IMG_EXTENSIONS):
        return name.rstrip(), label.lstrip()
    name, *rest = line.rsplit(maxsplit=1)
    return name, rest[0] if rest else ""


def is_tools(path: str) -> bool:
    """Tells whether a file in a list or a table, or a folder in its path, is hidden or a tool's."""
    folder, _, name = path.rpartition("/")
    return is_tool(name) or _in_tools(folder)


@lru_cache(maxsize=4096)  # a million images lie in a thousand folders
def _in_tools(folder: str) -> bool:
    return any(is_tool(name) for name in folder.split("/") if name not in (".", ".."))


def note_on_tools(file: Path, left_out: Sequence[str]) -> list[str]:
    """Gives the note that a list or a table names files that are no data, if it does."""
    if not left_out:
        return []
    return [
        f"data set {file}: left out {len(left_out)} files that are hidden or of tools, the first: "
        f"{short(left_out[0])}"
    ]


def notes_on_paths(
    root: Path, paths: Mapping[Split, Sequence[str]], labels: np.ndarray, split: Split
) -> list[str]:
    """Gives notes on images that are listed again or in both splits, and on a first one that is missing.

    Args:
        root: The folder of the data set.
        paths: For each split, the paths of its images, absolute or from the working directory.
        labels: The labels of `split`.
        split: The split that the notes are for.
    """
    import pandas as pd  # not at the top: readers of images start sooner without it

    notes = []
    real = {name: [_normal(path) for path in some] for name, some in paths.items()}
    listed = pd.DataFrame({"path": real[split], "label": labels})
    again = listed[listed["path"].duplicated()]
    if len(again):
        others = listed.drop_duplicates()["path"].duplicated().sum()
        differ = f", {others} with different labels" if others else ""
        first = os.path.relpath(again["path"].iloc[0], root)
        notes.append(f"data set {root}: {len(again)} images are listed again{differ}, the first: {first}")
    training = set(real.get("train", []))
    if both := [path for path in dict.fromkeys(real.get("val", [])) if path in training]:
        first = os.path.relpath(both[0], root)
        notes.append(
            f"data set {root}: {len(both)} images are in both training and validation, the first: {first}"
        )
    return notes + _note_on_missing(root, paths[split][0], split)


def _normal(path: str) -> str:
    """Gives a path without . and .. in it; quickly where it has none, as there may be millions of paths."""
    return os.path.normpath(path) if "/." in path or "//" in path or path.startswith(".") else path


def _note_on_missing(root: Path, path: str, split: Split) -> list[str]:
    """Gives the note that the first image is not there, but under another path that may have been meant."""
    if os.path.lexists(path):
        return []
    below = os.path.relpath(path, root)
    name = path if below.startswith("..") else below
    variants = [
        name.strip(),
        name.lstrip("/"),
        name.replace("\\", "/"),
        f"{name}.jpg",
        f"{name}.png",
        f"{split}/{name}",
    ]
    found = next((other for other in variants if other != name and os.path.isfile(root / other)), None)
    if found is None:
        return []
    return [
        f"data set {root}: {short(repr(name))}, the first {split} image, is not there, but "
        f"{short(repr(found))} is: correct the paths"
    ]


def common_folders(
    root: Path, listed: Mapping[Split, tuple[Sequence[str], Labelled]]
) -> tuple[dict[int, str], list[str]]:
    """Gives the folder of each class's images, where each class has one of its own.

    Args:
        root: The folder of the data set.
        listed: For each split, the paths of the images and their labels.

    Returns:
        The names of the folders by label; and a note if a folder is that of one class in training and of
        another in validation, which may be where folders do not stand for classes.

    Raises:
        UserError: If a folder is that of two classes, and labels are only numbers or it is called like a
            class.
    """
    names: dict[int, str] = {}
    notes = []
    for paths, own in listed.values():
        folders = {
            (label, os.path.basename(os.path.dirname(path)))
            for path, label in zip(paths, own.labels.tolist(), strict=True)
        }
        if not len(folders) == len({label for label, _ in folders}) == len({name for _, name in folders}):
            continue  # folders do not stand for classes here, as in a flat val/
        folders = {(label, name) for label, name in folders if name}
        known = {name: label for label, name in names.items()}
        for label, name in sorted(folders):
            other = known.get(name, label)
            if other == label:
                continue
            if not own.named or name in own.classes:
                raise UserError(
                    f"data set {root}: found label {other} for all training images in {name}/ and "
                    f"{label} for all validation images in {name}/, expected the same: correct the labels"
                )
            notes = notes or [
                f"data set {root}: all training images in {short(name)}/ are of class "
                f"{short(own.classes[other])}, and all validation images there of class "
                f"{short(own.classes[label])}"
            ]
        names.update(folders)
    return names, notes
