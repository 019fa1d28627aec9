"""The labels in files as they stand there: the different ones, their places, and whether they are numbers."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sysds_resnet.classes.file import CLASSES_FILE, short
from sysds_resnet.errors import UserError

NUMBER = re.compile(r"[+-]?\d+(\.\d*)?", re.ASCII)
_DIGITS = 18  # numbers with more digits cannot be meant as classes, and need not fit into int64


@dataclass(frozen=True)
class LabelColumn:
    """The labels of one file as they stand there.

    Attributes:
        values: The labels: integers, floats, booleans, or text; of shape (n,).
        where: A function that gives the place of label i for errors, such as its file and row.
        names: The names of the classes that the labels number, where the file tells them.
    """

    values: Any
    where: Callable[[int], str]
    names: Sequence[str] | None = None


class Part:
    """The labels of a file: the different ones, and which of them is where.

    Attributes:
        labels: The different labels, integers or text.
        codes: The position in `labels` of each image's label, of shape (n,).
    """

    def __init__(self, column: LabelColumn) -> None:
        import pandas as pd  # not at the top: readers of images start sooner without it

        self.where, self.names = column.where, column.names
        self.codes, found = pd.factorize(pd.Series(column.values))
        if (self.codes < 0).any():
            raise self.missing(-1)
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
        """Gives the place in the file of the first label with this code."""
        return self.where(int((self.codes == code).argmax()))

    def missing(self, code: int) -> UserError:
        """Gives the error for a place where there is no label."""
        return UserError(f"{self.place(code)}: found no label, expected one for each image: fill it")

    def not_whole(self, label: object, code: int) -> UserError:
        """Gives the error for a number that is no label."""
        return UserError(
            f"{self.place(code)}: found label {short(str(label))}, expected whole numbers from 0, or names: "
            "correct it"
        )


def are_numbers(parts: Sequence[Part]) -> bool:
    """Tells whether all labels are numbers, and turns text that stands for numbers into numbers."""
    texts = [label for part in parts for label in part.labels if isinstance(label, str)]
    names = {text for text in texts if not NUMBER.fullmatch(text.strip())}
    if names:
        # Pandas writes nan for a label that is missing among floats.
        if {name.lower() for name in names} == {"nan"} and any("." in text for text in texts):
            part = next(part for part in parts if names.intersection(part.labels))
            raise part.missing(next(i for i, label in enumerate(part.labels) if label in names))
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
                if len(whole.lstrip("+-0")) > _DIGITS:
                    raise large_gaps(part, code, label.strip(), len(set(texts)))
                part.labels[code] = int(whole)
    return True


def large_gaps(part: Part, code: int, label: str, different: int) -> UserError:
    """Gives the error for a number that is too large for the number of different labels there are."""
    return UserError(
        f"{part.place(code)}: found label {short(label)}, and {different} different labels in all, expected "
        "numbers from 0 without large gaps: number the classes anew, use names for labels, or name every "
        f"class up to this one in {CLASSES_FILE}"
    )
