"""Labels as they stand in files, numbers or names, into numbers from 0 that mean the same in both splits."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sysds_resnet.errors import NoSuchSplit, UserError
from sysds_resnet.images.classes import (
    CLASSES_FILE,
    alike,
    check_class_names,
    first_of,
    named_classes,
    notes_on,
)
from sysds_resnet.images.files import Split

_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?", re.ASCII)
_GAPS = 10  # classes for each label that is there, above which numbers are identifiers
_FREE = 100  # classes that may be without a label whatever their number


@dataclass(frozen=True)
class LabelColumn:
    """The labels of one file as they stand there.

    Attributes:
        values: integers, floats, booleans, or text; of shape (n,).
        where: what errors call the place of label i, such as its file and row.
        names: of numbered classes, where the file tells.
    """

    values: Any
    where: Callable[[int], str]
    names: Sequence[str] | None = None


@dataclass(frozen=True)
class Labelled:
    """The labels of a split.

    Attributes:
        labels: from 0, int64 of shape (n,).
        classes: names of the classes.
        notes: lines on classes without images.
        named: whether the files or classes.txt name the classes; otherwise they are called by numbers.
    """

    labels: np.ndarray
    classes: list[str]
    notes: list[str]
    named: bool


def assign_labels(root: Path, columns: Mapping[Split, Sequence[LabelColumn]], split: Split) -> Labelled:
    """Give the labels of a split as numbers from 0, and name the classes.

    Labels that are all integers, or text and floats that stand for such, are numbers; others are names of
    classes, which are numbered in sorted order. A classes.txt names numbered classes, and gives the order of
    named ones. Where files have names for their numbers, these count: a number is the class of the first
    training file that has the same name.

    Args:
        root: folder of the data set.
        columns: of each split that is there, the labels of its files, in their order.
        split: whose labels to give.

    Raises:
        UserError: a label is missing, negative, no whole number among numbers, or of no class; numbers have
            such gaps that they cannot be meant; or a validation label is of a class that has no training
            images and that neither classes.txt nor the files name.
    """
    parts = {name: [_Part(column) for column in some if len(column.values)] for name, some in columns.items()}
    parts = {name: some for name, some in parts.items() if some}
    if split not in parts:
        raise NoSuchSplit(f"data set {root}: found no labels for {split}, expected some: add images")
    every = [part for name in ("train", "val") for part in parts.get(name, [])]
    listed = named_classes(root)
    notes = []
    if _are_numbers(every):
        listed = _map_names(every, listed)
        classes = _numbered(root, every, listed)
        positions: dict[Any, int] = {i: i for i in range(len(classes))}
        named = listed is not None
        if not named and min(label for part in every for label in part.labels) == 1:
            notes.append(f"data set {root}: no image has label 0; labels count from 0, not from 1")
    else:
        named = True
        classes = listed or sorted({label for part in parts.get("train", every) for label in part.labels})
        check_class_names(classes, f"data set {root}")
        notes += _note_on_mixture(root, every)
        positions = {name: i for i, name in enumerate(classes)}
        if listed:
            _check_listed(root, every, positions)
    there = {
        name: {positions[label] for part in some for label in part.labels if label in positions}
        for name, some in parts.items()
    }
    if "train" in parts and listed is None:
        for part in parts.get("val", []):
            for label in part.labels:
                if positions.get(label) not in there["train"]:
                    raise _no_training_images(part, label, [classes[i] for i in sorted(there["train"])])
    lacking = {}
    if "train" in there:
        kinds = {"train": "training images", "val": "validation images"}
        lacking = {
            kinds[name]: [classes[i] for i in range(len(classes)) if i not in some]
            for name, some in there.items()
        }
    labels = [
        np.array([positions[label] for label in part.labels], np.int64)[part.codes] for part in parts[split]
    ]
    return Labelled(np.concatenate(labels), classes, notes + notes_on(root, classes, lacking), named)


class _Part:
    """The labels of a file: which different ones there are, and which of them is where.

    Attributes:
        labels: the different ones, integers or text.
        codes: positions in `labels`, of shape (n,).
    """

    def __init__(self, column: LabelColumn) -> None:
        self.where, self.names = column.where, column.names
        self.codes, found = pd.factorize(pd.Series(column.values))
        if (missing := self.codes < 0).any():
            raise UserError(
                f"{self.where(int(missing.argmax()))}: found no label, expected one for each image: fill it"
            )
        self.labels = [self._plain(label, i) for i, label in enumerate(found)]

    def _plain(self, label: Any, code: int) -> int | str:
        if isinstance(label, (bool, np.bool_)):
            return str(bool(label))
        if isinstance(label, (int, np.integer)):
            return int(label)
        if isinstance(label, (float, np.floating)):
            if not float(label).is_integer():
                raise self.not_whole(label, code)
            return int(label)
        return str(label)

    def place(self, code: int) -> str:
        """Where the first label of a kind is."""
        return self.where(int((self.codes == code).argmax()))

    def not_whole(self, label: object, code: int) -> UserError:
        """The error for a number that is no label."""
        return UserError(
            f"{self.place(code)}: found label {label}, expected whole numbers from 0, or names: correct it"
        )


def _are_numbers(parts: Sequence[_Part]) -> bool:
    """Whether all labels are numbers; text that stands for them becomes numbers."""
    texts = [label for part in parts for label in part.labels if isinstance(label, str)]
    if not all(_NUMBER.fullmatch(text.strip()) for text in texts):
        for part in parts:
            if mixed := [label for label in part.labels if not isinstance(label, str)]:
                raise UserError(
                    f"{part.place(part.labels.index(mixed[0]))}: found label {mixed[0]}, a number, where "
                    "others are names, expected all of one kind: write them alike in all files"
                )
        return False
    for part in parts:
        for code, label in enumerate(part.labels):
            if isinstance(label, str):
                whole, _, fraction = label.strip().partition(".")
                if fraction.strip("0"):
                    raise part.not_whole(label, code)
                part.labels[code] = int(whole)
    return True


def _note_on_mixture(root: Path, parts: Sequence[_Part]) -> list[str]:
    """The note that numbers are taken for names because of others: a slip of the pen would do."""
    numbers = {str(label) for part in parts for label in part.labels if _NUMBER.fullmatch(str(label).strip())}
    names = ((part, code) for part in parts for code, label in enumerate(part.labels) if label not in numbers)
    part, code = next(names)
    if not numbers:
        return []
    return [
        f"data set {root}: {len(numbers)} different labels are numbers, but others are not, such as "
        f"{part.labels[code]!r} at {part.place(code)}: all are taken for names"
    ]


def _map_names(parts: Sequence[_Part], listed: list[str] | None) -> list[str] | None:
    """Turn numbers that files name into those of the first file; give what the classes are called, if known.

    The names in `listed`, those of a classes.txt, go before what the files call the classes.
    """
    first = next((part for part in parts if part.names is not None), None)
    if first is None:
        return listed
    names = list(first.names)
    for part in parts:
        if part.names is None:
            raise UserError(
                f"{part.where(0)}: found no names of the classes in the file, expected them as at "
                f"{first.where(0)}: write both files alike"
            )
        for code, label in enumerate(part.labels):
            if not 0 <= label < len(part.names):
                raise UserError(
                    f"{part.place(code)}: found label {label}, expected 0 to {len(part.names) - 1} for the "
                    f"{len(part.names)} classes that the file names: correct it"
                )
            if list(part.names) != names:
                name = part.names[label]
                if name not in names:
                    raise _no_training_images(part, name, names, code)
                part.labels[code] = names.index(name)
    return listed or names


def _numbered(root: Path, parts: Sequence[_Part], names: list[str] | None) -> list[str]:
    """Names of the classes of numbers, as many as there must be."""
    least, least_part = min((label, i) for i, part in enumerate(parts) for label in part.labels)
    most, most_part = max((label, i) for i, part in enumerate(parts) for label in part.labels)
    if least < 0:
        part = parts[least_part]
        raise UserError(
            f"{part.place(part.labels.index(least))}: found label {least}, expected labels from 0: correct it"
        )
    different = len({label for part in parts for label in part.labels})
    if most >= _GAPS * different + _FREE + len(names or []):
        part = parts[most_part]
        raise UserError(
            f"{part.place(part.labels.index(most))}: found label {most}, and {different} different labels in "
            "all, expected numbers from 0 without large gaps: number the classes anew, use names for labels, "
            f"or name every class up to this one in {root / CLASSES_FILE}"
        )
    if names is None:
        return [str(i) for i in range(most + 1)]
    if most >= len(names):
        named_classes(root, most + 1)  # raises an error where it is classes.txt that is too short
    return names


def _check_listed(root: Path, parts: Sequence[_Part], classes: Collection[str]) -> None:
    for part in parts:
        for code, label in enumerate(part.labels):
            if label not in classes:
                raise UserError(
                    f"{root / CLASSES_FILE}: found no class {label!r}, which is a label at {part.place(code)}"
                    f"{_hint(str(label), classes)}, expected all of them: add it"
                )


def _hint(name: str, classes: Collection[str]) -> str:
    other = alike(name, classes)
    return "" if other is None else f" (but {other!r}, which differs by case, spaces or normal form alone)"


def _no_training_images(
    part: _Part, label: Any, classes: Sequence[str], code: int | None = None
) -> UserError:
    """The error for a label of validation images that no training image has."""
    place = part.place(part.labels.index(label) if code is None else code)
    return UserError(
        f"{place}: found label {label!r}, which no training image has{_hint(str(label), classes)}, expected "
        f"one of the {len(classes)} classes of the training images ({first_of(classes)}): correct it, or "
        f"name all classes in {CLASSES_FILE}"
    )
