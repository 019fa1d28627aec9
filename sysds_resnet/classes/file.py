"""The names of classes: the file classes.txt, and names that are almost the same."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from sysds_resnet.classes.comparison import fold
from sysds_resnet.errors import UserError
from sysds_resnet.system.files import decode_text, read_text

CLASSES_FILE = "classes.txt"
_NAMED = 3  # how many classes a note names
_LONG = 80  # how many characters of a name or label a message repeats
_NUMBER = re.compile(r"\d{1,18}", re.ASCII)
_NUMBERED = re.compile(r"""["']?(\d{1,18})["']?[\s,;:=]+\S.*""", re.ASCII)


def classes_text(classes: Iterable[str]) -> str:
    """Gives the text of a classes.txt, which `named_classes` reads."""
    return "".join(f"{name}\n" for name in classes)


def named_classes(root: Path, number: int | None = None) -> list[str] | None:
    """Reads class names from classes.txt, one in a line in the order of the labels; None if there is no file.

    The names are as `classes_text` wrote them, with the spaces around them; `listed_classes` is for what
    people write.

    Args:
        root: The folder with the file, of a data set or a run.
        number: The number of classes that must have a name, at least; by default any.

    Raises:
        UserError: If the file is not text in UTF-8, or names no class, one twice, or too few.
    """
    path = root / CLASSES_FILE
    if not os.path.exists(path):  # Path.exists raises errors for names that are too long
        return None
    names = _lines(read_text(path))
    if not names or len(set(names)) < len(names) or (number is not None and len(names) < number):
        raise UserError(
            f"{path}: found {len(set(names))} different names in {len(names)} lines, expected one for each "
            f"of {number or len(names) or 'the'} classes: correct the file"
        )
    return names


def listed_classes(root: Path, labels: Collection[object]) -> list[str] | None:
    """Reads class names from the classes.txt that somebody wrote for a data set; None if there is none.

    Spaces around a name are left out, unless a label has them too.

    Args:
        root: The folder of the data set.
        labels: All labels that the data set has.

    Raises:
        UserError: If `named_classes` refuses the file, or it is JSON or a table, whose lines would be taken
            for names.
    """
    names = named_classes(root)
    if names is None:
        return None
    names = [name if name in labels else name.strip() for name in names]
    if not any(name in labels for name in names):
        numbers = sorted(int(match[1]) for match in map(_NUMBERED.fullmatch, names) if match)
        counted = [list(range(first, first + len(names))) for first in (0, 1)]
        if numbers in counted or _is_json("\n".join(names)):
            found = "numbers beside names" if numbers in counted else "JSON"
            raise UserError(
                f"{root / CLASSES_FILE}: found {found} ({first_of(names)}), expected nothing but a name in "
                "each line, the first that of label 0: rewrite it"
            )
    return names


def positions_by_name(root: Path, listed: list[str] | None, labels: Collection[int]) -> dict[int, int] | None:
    """Tells which classes the labels are if the names in classes.txt are numbers, as of numbered folders.

    A run on such folders sorts the names as text: 0, 1, 10, 2. Label 2 is then the class that is called 2,
    not the third class.

    Args:
        root: The folder of the data set.
        listed: The names that `listed_classes` found.
        labels: All labels that the data set has.

    Returns:
        The position in the file of each number. None if the names are no numbers, or count classes from 0, or
        ascend while not all labels are among them: years, for example, name classes as words do.

    Raises:
        UserError: If the names are numbers in another order and not all labels are among them, or if two are
            the same number.
    """
    if not listed or not all(map(_NUMBER.fullmatch, listed)):
        return None
    numbers = [int(name) for name in listed]
    positions = {number: i for i, number in enumerate(numbers)}
    others = [label for label in labels if label not in positions]
    if numbers == list(range(len(numbers))) or (others and numbers == sorted(numbers)):
        return None
    if not others and len(positions) == len(numbers):
        return positions
    raise UserError(
        f"{root / CLASSES_FILE}: found numbers for names, in another order, and not just one that is label "
        f"{short(str(others[0] if others else numbers[0]))}, expected all labels, or names: rewrite it"
    )


def check_class_names(names: Iterable[str], where: str | Path) -> None:
    """Refuses names that a classes.txt cannot hold, such as empty ones or two that are the same.

    Names that pass come back from `named_classes` as they were, if `classes_text` gave the file's text.

    Raises:
        UserError: If there is such a name; the message has the name, and the place as `where` calls it.
    """
    known = set()
    for name in names:
        if name in known:
            raise UserError(
                f"{where}: found the class name {short(repr(name))} twice, expected another for each class: "
                "rename one of them"
            )
        known.add(name)
        if not _is_line(name):
            raise UserError(
                f"{where}: found the class name {short(repr(name))}, expected a line of text in UTF-8: "
                "rename the class"
            )


def _lines(text: str) -> list[str]:
    return [line.rstrip("\r") for line in text.split("\n") if line.strip()]


def _is_line(name: str) -> bool:
    """Tells whether a name stays the same as a line of a file that is written and read, even as the first."""
    if "\r" in name:  # editors and spreadsheets take it for the end of a line
        return False
    try:
        return _lines(decode_text(classes_text([name]).encode(), CLASSES_FILE)) == [name]
    except (UnicodeEncodeError, UserError):
        return False


def _is_json(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict | list)
    except ValueError:
        return False


def is_text(name: str) -> bool:
    """Tells whether a name can be written as UTF-8: Python's text for a file name in other bytes cannot."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def alike(name: str, names: Iterable[str]) -> str | None:
    """Finds the first of `names` that differs from `name` only by what `comparison.fold` takes away."""
    return next((other for other in names if other != name and fold(other) == fold(name)), None)


def almost_the_same(names: Sequence[str]) -> tuple[str, str] | None:
    """Finds the first two of `names` that differ only by what `comparison.fold` takes away, or None."""
    known: dict[str, str] = {}
    for name in names:
        other = known.setdefault(fold(name), name)
        if other != name:
            return other, name
    return None


def first_of(names: Sequence[str]) -> str:
    """Gives the first few names, for a message."""
    return ", ".join(map(short, names[:_NAMED])) + (", ..." if len(names) > _NAMED else "")


def short(text: str) -> str:
    """Gives a name or label for a message, cut if it is too long to be one."""
    return text if len(text) <= _LONG else f"{text[:_LONG]}... of {len(text)} characters"


def notes_on(root: Path, classes: Sequence[str], lacking: dict[str, Iterable[str]]) -> list[str]:
    """Gives notes on classes without images, and on the first two that are almost the same.

    Args:
        root: The folder of the data set.
        classes: The names of all classes.
        lacking: The names of classes that lack something, by what they lack, such as "training images".
    """
    notes = []
    for what, found in lacking.items():
        if names := list(found):
            notes.append(
                f"data set {root}: {len(names)} of {len(classes)} classes have no {what}: {first_of(names)}"
            )
    if pair := almost_the_same(classes):
        notes.append(
            f"data set {root}: the classes {short(repr(pair[0]))} and {short(repr(pair[1]))} differ by case, "
            "spaces, hyphens or Unicode's normal form alone"
        )
    return notes
