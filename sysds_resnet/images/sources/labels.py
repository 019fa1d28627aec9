"""The conversion of labels in files, numbers or names, to numbers from 0 with one meaning in both splits."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sysds_resnet.classes.file import (
    CLASSES_FILE,
    alike,
    check_class_names,
    first_of,
    listed_classes,
    named_classes,
    notes_on,
    positions_by_name,
    short,
)
from sysds_resnet.errors import NoSuchSplit, UserError
from sysds_resnet.images.sources.files import Split
from sysds_resnet.images.sources.label_values import NUMBER, LabelColumn, Part, are_numbers, large_gaps

_GAPS = 10  # classes for each different label, above which numbers are taken for identifiers
_FREE = 100  # more classes that may be without a label, however few labels there are


@dataclass(frozen=True)
class Labelled:
    """The labels of a split.

    Attributes:
        labels: The labels from 0, int64 of shape (n,).
        classes: The names of the classes.
        notes: The lines for people to read on the labels and on classes without images.
        named: Whether the files or classes.txt name the classes; otherwise they are called by numbers.
    """

    labels: np.ndarray
    classes: list[str]
    notes: list[str]
    named: bool


def assign_labels(root: Path, columns: Mapping[Split, Sequence[LabelColumn]], split: Split) -> Labelled:
    """Gives the labels of a split as numbers from 0, and names the classes.

    Labels that are all integers, or text and floats that stand for such, are numbers; others are names of
    classes, which are numbered in sorted order. A classes.txt names numbered classes, and gives the order of
    named ones. Where files have names for their numbers, these names count: a number stands for the class
    that has its name in the first file, a training file if there is one.

    Args:
        root: The folder of the data set.
        columns: For each split that is there, the labels of its files, in their order.
        split: The split whose labels to give.

    Raises:
        UserError: If a label is missing, negative, no whole number among numbers, or of no class; if numbers
            have such gaps that they cannot be meant; or if a validation label is of a class that has no
            training images and that neither classes.txt nor the files name.
    """
    parts = {name: [Part(column) for column in some if len(column.values)] for name, some in columns.items()}
    parts = {name: some for name, some in parts.items() if some}
    if split not in parts:
        raise NoSuchSplit(f"data set {root}: found no labels for {split}, expected some: add images")
    every = [part for name in ("train", "val") for part in parts.get(name, [])]
    numbered = are_numbers(every)
    there_are = {label for part in every for label in part.labels}
    listed = listed_classes(root, there_are)
    notes = []
    by_files = any(part.names is not None for part in every)
    positions = positions_by_name(root, listed, there_are) if numbered and not by_files else None
    if positions is not None:
        named, classes = True, listed or []
        notes.append(f"data set {root}: the names in {CLASSES_FILE} are numbers, and labels are such names")
    elif numbered:
        listed = _map_names(every, listed)
        classes = _numbered(root, every, listed)
        positions = {i: i for i in range(len(classes))}
        named = listed is not None
        if min(there_are) == 1 and not by_files:
            notes.append(f"data set {root}: no image has label 0; labels count from 0, not from 1")
    else:
        named = True
        classes = listed or sorted({label for part in parts.get("train", every) for label in part.labels})
        notes += _note_on_mixture(root, every)
        positions = {name: i for i, name in enumerate(classes)}
        if listed:
            _check_listed(root, every, positions)
    if named:
        check_class_names(classes, f"data set {root}")
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


def _note_on_mixture(root: Path, parts: Sequence[Part]) -> list[str]:
    """Gives the note that numbers are taken for names because some labels are names, maybe by mistake."""
    numbers = {str(label) for part in parts for label in part.labels if NUMBER.fullmatch(str(label).strip())}
    names = ((part, code) for part in parts for code, label in enumerate(part.labels) if label not in numbers)
    part, code = next(names)
    if not numbers:
        return []
    return [
        f"data set {root}: {len(numbers)} different labels are numbers, but others are not, such as "
        f"{short(repr(part.labels[code]))} at {part.place(code)}: all are taken for names"
    ]


def _map_names(parts: Sequence[Part], listed: list[str] | None) -> list[str] | None:
    """Turns each file's numbers into those of the first file with names; gives the class names, if known.

    The names in `listed`, those of a classes.txt, take precedence over what the files call the classes.
    """
    first = next((part for part in parts if part.names is not None), None)
    if first is None:
        return listed
    names = list(first.names)
    check_class_names(names, first.where(0))
    for part in parts:
        if part.names is None:
            raise UserError(
                f"{part.where(0)}: found no names of the classes in the file, expected them as at "
                f"{first.where(0)}: write both files alike"
            )
        if list(part.names) != names:
            check_class_names(part.names, part.where(0))
        for code, label in enumerate(part.labels):
            if not 0 <= label < len(part.names):
                raise UserError(
                    f"{part.place(code)}: found label {short(str(label))}, expected 0 to "
                    f"{len(part.names) - 1} for the {len(part.names)} classes that the file names: correct it"
                )
            if list(part.names) != names:
                name = part.names[label]
                if name not in names:
                    raise _no_training_images(part, name, names, code)
                part.labels[code] = names.index(name)
    return listed or names


def _numbered(root: Path, parts: Sequence[Part], names: list[str] | None) -> list[str]:
    """Gives the names of numbered classes, as many as the labels need."""
    least, least_part = min((label, i) for i, part in enumerate(parts) for label in part.labels)
    most, most_part = max((label, i) for i, part in enumerate(parts) for label in part.labels)
    if least < 0:
        part = parts[least_part]
        raise UserError(
            f"{part.place(part.labels.index(least))}: found label {short(str(least))}, expected "
            "labels from 0: correct it"
        )
    different = len({label for part in parts for label in part.labels})
    if most >= _GAPS * different + _FREE + len(names or []):
        part = parts[most_part]
        raise large_gaps(part, part.labels.index(most), str(most), different)
    if names is None:
        return [str(i) for i in range(most + 1)]
    if least == 1 and most == len(names):
        part = parts[most_part]
        raise UserError(
            f"{part.place(part.labels.index(most))}: found label {most}, and none is 0, expected 0 to "
            f"{most - 1} for the {most} names in {root / CLASSES_FILE}: labels count from 0, not from 1, so "
            "subtract 1 from each, or name class 0 too"
        )
    if most >= len(names):
        named_classes(root, most + 1)  # raises an error where it is classes.txt that is too short
    return names


def _check_listed(root: Path, parts: Sequence[Part], classes: Collection[str]) -> None:
    for part in parts:
        for code, label in enumerate(part.labels):
            if label not in classes:
                raise UserError(
                    f"{root / CLASSES_FILE}: found no class {short(repr(label))}, which is a label at "
                    f"{part.place(code)}{_hint(str(label), classes)}, expected all of them: add it"
                )


def _hint(name: str, classes: Collection[str]) -> str:
    other = alike(name, classes)
    return (
        ""
        if other is None
        else f" (but {short(repr(other))}, which differs by case, spaces, hyphens or normal form alone)"
    )


def _no_training_images(part: Part, label: Any, classes: Sequence[str], code: int | None = None) -> UserError:
    """Gives the error for a label of validation images that no training image has."""
    place = part.place(part.labels.index(label) if code is None else code)
    return UserError(
        f"{place}: found label {short(repr(label))}, which no training image has"
        f"{_hint(str(label), classes)}, expected one of the {len(classes)} classes of the training images "
        f"({first_of(classes)}): correct it, or name all classes in {CLASSES_FILE}"
    )
