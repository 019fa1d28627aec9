"""What the layouts share: names of splits and columns, and the files of a split."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from sysds_resnet.errors import UserError, one_line
from sysds_resnet.images.tools import is_tool

Split = Literal["train", "val"]

IMG_EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""Endings of image files in either case, so .JPEG too; torchvision's list."""

SPLIT_NAMES = {"train": ("train", "training"), "val": ("val", "validation", "valid")}
"""What splits are called in files, folders and columns, in either case."""

TEST_NAMES = ("test", "testing")
"""What the split is called that is for validation only where there is no other."""

PATH_COLUMNS = ("path", "file", "filename", "file_name", "image_path")
LABEL_COLUMNS = ("label", "labels", "class", "target", "fine_label")

_FOLDERS = (".", "data", "default")  # in which the files of a data set lie; default is Hugging Face's


class SplitFiles(NamedTuple):
    """The files of a split.

    Attributes:
        files: in sorted order.
        notes: lines on what was taken for another split, or left out.
    """

    files: list[Path]
    notes: list[str]


def find_files(root: Path, split: Split, ending: str) -> SplitFiles:
    """Find the files of a split with some ending, in either case.

    They lie in a data set's folder, its data/ or its default/, and the words of their names tell the split,
    as in train-00000-of-00002.parquet and imagenet-val-000000.tar; or they lie in a folder that is called
    like the split, whatever their own names. Hidden files are left out.

    Args:
        root: folder of the data set.
        split: whose files to find; where val has none, the test split's are taken for it.
        ending: with its dot.

    Raises:
        UserError: a name tells two splits, or a folder cannot be read.
    """
    found = _files_called(root, SPLIT_NAMES[split], ending)
    if split == "train":
        return SplitFiles(found, [])
    test = _files_called(root, TEST_NAMES, ending)
    if found or not test:
        return SplitFiles(found, test_unused(root, f"{len(test)} {ending} files") if test else [])
    return SplitFiles(test, test_taken(root, test[0].name))


def test_taken(root: Path, what: str) -> list[str]:
    """The note that images of the test split are taken for validation."""
    return [f"data set {root}: validation is on the test split ({what}), as there is no val"]


def test_unused(root: Path, what: str) -> list[str]:
    """The note that there is a test split beside that for validation."""
    return [f"data set {root}: the test split ({what}) is not used, as there is val"]


def split_named(name: str) -> str | None:
    """Which split a word names: train, val or test, in either case, with or without spaces around it."""
    word = name.strip().lower()
    if word in TEST_NAMES:
        return "test"
    return next((split for split, names in SPLIT_NAMES.items() if word in names), None)


def split_folder(root: Path, split: str) -> Path | None:
    """The folder of a split, train, val or test, whatever the case of its name; None if there is none."""
    called = sorted(name for name in entries(root) if split_named(name) == split)
    usual_first = sorted(called, key=lambda name: name != split)
    return next((root / name for name in usual_first if (root / name).is_dir()), None)


def entries(folder: Path) -> list[str]:
    """The names in a folder, sorted; none if there is no such folder.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise UserError(
            f"folder {folder}: found {one_line(error)}, expected a readable folder: fix it"
        ) from error


def _files_called(root: Path, names: tuple[str, ...], ending: str) -> list[Path]:
    for folder in _FOLDERS:
        found = [path for path in _with_ending(root / folder, ending) if _tells(path, names)]
        if found:
            return found
    for folder in _FOLDERS:
        for name in entries(root / folder):
            if name.lower() in names and (found := list(_with_ending(root / folder / name, ending))):
                return found
    return []


def _with_ending(folder: Path, ending: str) -> Iterator[Path]:
    for name in entries(folder):
        if name.lower().endswith(ending) and not is_tool(name):
            yield folder / name


def _tells(path: Path, names: tuple[str, ...]) -> bool:
    """Whether a file's name says that it is of the split with these names; test counts only alone."""
    words = set(re.findall("[a-z]+", path.name.lower()))
    told = [split for split, called in SPLIT_NAMES.items() if words & set(called)]
    if len(told) > 1:
        raise UserError(
            f"{path}: found the names of two splits in that of a file, expected one: rename it, or move it "
            "into the folder of its split"
        )
    if names == TEST_NAMES:
        return not told and bool(words & set(names))
    return bool(words & set(names))
