"""What the layouts share: the names of splits and columns, and the search for the files of a split."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple

from sysds_resnet.classes.file import first_of
from sysds_resnet.errors import UserError, one_line
from sysds_resnet.images.sources.tools import is_tool

Split = Literal["train", "val"]

IMG_EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""The endings of image files, in lower or upper case, so .JPEG too; torchvision's list."""

SPLIT_NAMES = {"train": ("train", "training"), "val": ("val", "validation", "valid")}
"""The names of each split in files, folders and columns, in lower or upper case."""

TEST_NAMES = ("test", "testing")
"""The names of the test split, which is used, for validation, only where there is no val."""

PATH_COLUMNS = ("path", "file", "filename", "file_name", "image_path")
IMAGE_COLUMNS = ("image", "img", "jpg", "jpeg", "png", "webp")
LABEL_COLUMNS = ("label", "labels", "class", "target", "fine_label")

LFS = b"version https://git-lfs"
"""The beginning of the few lines of text that Git LFS leaves in place of a file that it did not fetch."""

_FOLDERS = (".", "data", "default")  # where the files of a data set lie; default is Hugging Face's

_NUMBERED = re.compile(r"(.*?)[-_](\d{1,9})-of-(\d{1,9})(?!\d)", re.ASCII)
_COPY = re.compile(r" \(\d+\)(?=\.)| - Copy(?: \(\d+\))?(?=\.)", re.ASCII)  # what browsers and Windows add


class SplitFiles(NamedTuple):
    """The files of a split.

    Attributes:
        files: The paths of the files, in sorted order.
        notes: The lines for people to read on what was taken for another split, left out, or odd.
        is_test: Whether they are the files of the test split, in place of val's.
    """

    files: list[Path]
    notes: list[str]
    is_test: bool = False


def find_files(root: Path, split: Split, ending: str) -> SplitFiles:
    """Finds the files of a split with some ending, in lower or upper case.

    They lie in the data set's folder, its data/ or its default/, and the words of their names tell the split,
    as in train-00000-of-00002.parquet and imagenet-val-000000.tar; or they lie in a folder there that is
    called like the split, whatever their own names. The first of these places that has any counts, and files
    in the others are noted. Hidden files are left out.

    Args:
        root: The folder of the data set.
        split: The split whose files to find; where val has none, the test split's are taken for it.
        ending: The ending of the files, with its dot.

    Raises:
        UserError: If a name tells two splits, a folder cannot be read, or files are missing by the numbers of
            the others.
    """
    places = _files_called(root, SPLIT_NAMES[split], ending)
    test = _files_called(root, TEST_NAMES, ending) if split == "val" else []
    is_test = bool(test) and not places
    notes = []
    if is_test:
        notes, places = test_taken(root, test[0][0].name), test
    elif test:
        notes = test_unused(root, f"{len(test[0])} {ending} files")
    if not places:
        return SplitFiles([], [])
    files, *others = places
    _check_all_there(files)
    if others:
        notes.append(
            f"data set {root}: {split} images are from the {len(files)} {ending} files in {files[0].parent}; "
            f"not used, {sum(map(len, others))} elsewhere, the first: {others[0][0]}"
        )
    names = {path.name for path in files}
    for path in files:
        if (original := _COPY.sub("", path.name)) != path.name and original in names:
            notes.append(f"data set {root}: {path} is called like a copy of {original}; both are used")
    return SplitFiles(files, notes, is_test)


def refuse_pointer(path: Path, head: bytes) -> None:
    """Refuses a file that begins like the text that Git LFS leaves in place of a file it did not fetch.

    Raises:
        UserError: If `head`, the first bytes of the file, are those of such a text.
    """
    if head.startswith(LFS):
        raise UserError(
            f"{path}: found a pointer of Git LFS, expected the file itself: fetch it with git lfs pull"
        )


def test_taken(root: Path, what: str) -> list[str]:
    """Gives the note that images of the test split, which are in `what`, are taken for validation."""
    return [f"data set {root}: validation is on the test split ({what}), as there is no val"]


def test_unused(root: Path, what: str) -> list[str]:
    """Gives the note that there is a test split, in `what`, which is not used, as there is val."""
    return [f"data set {root}: the test split ({what}) is not used, as there is val"]


def split_named(name: str) -> str | None:
    """Gives the split that a word names, if any: train, val or test, ignoring case and outer spaces."""
    word = name.strip().lower()
    if word in TEST_NAMES:
        return "test"
    return next((split for split, names in SPLIT_NAMES.items() if word in names), None)


def files_of_split(root: Path, split: Split, endings: Sequence[str]) -> list[Path]:
    """Lists the files called like a split, with one of some endings, in any case: the likeliest first.

    For validation, files called like the test split come last.
    """
    names = SPLIT_NAMES[split] + (TEST_NAMES if split == "val" else ())
    there = {name.lower(): root / name for name in reversed(entries(root))}
    wanted = (f"{name}{ending}" for name in names for ending in endings)
    return [there[name] for name in wanted if name in there]


def plain_column(name: object) -> str:
    """Gives a column's name without what people write in different ways: case, and spaces around it."""
    return str(name).strip().lower()


def columns_called(there: Iterable[str], names: Sequence[str]) -> list[str]:
    """Lists the columns in `there` that have one of `names`, in the order of `names`, lower case first."""
    found = (
        (names.index(plain), column != plain, column)
        for column in there
        if (plain := plain_column(column)) in names
    )
    return [column for *_, column in sorted(found)]


def split_folders(root: Path, split: str) -> list[Path]:
    """Lists the folders called like a split, train, val or test, in any case: the one that counts first.

    Names that are links to the same folder count once.
    """
    called = sorted(name for name in entries(root) if split_named(name) == split)
    usual_first = sorted(called, key=lambda name: name != split)
    found: dict[str, Path] = {}
    for folder in (root / name for name in usual_first if os.path.isdir(root / name)):
        found.setdefault(os.path.realpath(folder), folder)
    return list(found.values())


def entries(folder: Path) -> list[str]:
    """Lists the names in a folder, sorted; none if there is no such folder.

    Raises:
        UserError: If the folder cannot be read.
    """
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise UserError(
            f"folder {folder}: found {one_line(error)}, expected a readable folder: fix it"
        ) from error


def _files_called(root: Path, names: tuple[str, ...], ending: str) -> list[list[Path]]:
    """Lists, by place, the files with one of `names` in their names or in that of their folder.

    The first place that has any is the one that counts.
    """
    places = [
        [path for path in _with_ending(root / folder, ending) if _tells(path, names)] for folder in _FOLDERS
    ]
    places += [
        list(_with_ending(root / folder / name, ending))
        for folder in _FOLDERS
        for name in entries(root / folder)
        if name.lower() in names
    ]
    return [files for files in places if files]


def _check_all_there(files: list[Path]) -> None:
    """Refuses files called like train-00003-of-00005 if some of the five are missing: a broken download."""
    sets: dict[tuple[str, int], set[int]] = {}
    for path in files:
        if told := _NUMBERED.match(path.name):
            sets.setdefault((told[1], int(told[3])), set()).add(int(told[2]))
    for (name, total), there in sets.items():
        first = min(1, min(there)) if max(there) == total else 0  # some count from 1
        missing = list(islice((str(i) for i in range(first, first + total) if i not in there), 4))
        if missing:
            raise UserError(
                f"{files[0].parent}: found {len(there)} of {total} files {name}-*-of-*, without number "
                f"{first_of(missing)}, expected all: fetch the missing ones, or name the others anew if that "
                "is all"
            )


def _with_ending(folder: Path, ending: str) -> Iterator[Path]:
    for name in entries(folder):
        if name.lower().endswith(ending) and not is_tool(name):
            yield folder / name


def names_split(path: str) -> bool:
    """Tells whether a word in a file's name, or in that of its folder, is the name of a split."""
    words = set(_words(path))
    return any(words & set(names) for names in (*SPLIT_NAMES.values(), TEST_NAMES))


def _words(name: str) -> list[str]:
    return re.findall("[a-z]+", name.lower())


def _tells(path: Path, names: tuple[str, ...]) -> bool:
    """Tells whether a file's name is of the split with these names; test counts only if it is alone."""
    words = set(_words(path.name))
    told = [split for split, called in SPLIT_NAMES.items() if words & set(called)]
    if len(told) > 1:
        raise UserError(
            f"{path}: found the names of two splits in that of a file, expected one: rename it, or move it "
            "into the folder of its split"
        )
    if names == TEST_NAMES:
        return not told and bool(words & set(names))
    return bool(words & set(names))
