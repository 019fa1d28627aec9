"""Names of classes: classes.txt, and names that are almost the same."""

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
_NAMED = 3  # classes that a note names
_LONG = 80  # characters of a name or label that a message repeats
_NUMBER = re.compile(r"\d{1,18}", re.ASCII)
_NUMBERED = re.compile(r"""["']?(\d{1,18})["']?[\s,;:=]+\S.*""", re.ASCII)


def classes_text(classes: Iterable[str]) -> str:
    """The text of a classes.txt, which `named_classes` reads."""
    return "".join(f"{name}\n" for name in classes)


def named_classes(root: Path, number: int | None = None) -> list[str] | None:
    """Class names from classes.txt, one in a line in the order of the labels, if there is one.

    They are as `classes_text` wrote them, with the spaces around them; see `listed_classes` for what people
    write.

    Args:
        root: folder of the data set.
        number: classes that must have a name at least.

    Raises:
        UserError: it is not text in UTF-8, names no class, one twice, or too few.
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
    """Class names from the classes.txt that somebody wrote for a data set, if there is one.

    Spaces around a name are left out, unless a label has them too.

    Args:
        root: folder of the data set.
        labels: all that are there.

    Raises:
        UserError: see `named_classes`; or it is JSON or a table, whose lines would be taken for names.
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
    """Which classes the labels are where a classes.txt has numbers for names, as a run on numbered folders.

    Such names are sorted as text: 0, 1, 10, 2. Label 2 is the class that is called 2, not the one that is the
    third.

    Args:
        root: folder of the data set.
        listed: what `listed_classes` found.
        labels: all that are there.

    Returns:
        The positions of the names in the file; None if these are no numbers; or count classes from 0; or are
        in their order but not all labels are among them, such as years, which name classes as words do.

    Raises:
        UserError: they are numbers in another order, and not all labels are among them.
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
    """Refuse names that a classes.txt cannot hold, such as empty ones or two that are the same.

    Whatever passes is what `named_classes` reads from the text of `classes_text`.

    Raises:
        UserError: it names the place and the name.
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
    """Whether a name is the same after it was a line of a file, be it the first one."""
    if "\r" in name:  # which editors and spreadsheets take for the end of a line
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
    """Whether a name is text: what the system gives for bytes that are not UTF-8 cannot be written."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def alike(name: str, names: Iterable[str]) -> str | None:
    """The first of `names` that differs from `name` by what `class_names.fold` takes away alone."""
    return next((other for other in names if other != name and fold(other) == fold(name)), None)


def almost_the_same(names: Sequence[str]) -> tuple[str, str] | None:
    """The first two of `names` that differ as in `alike`, if there are any."""
    known: dict[str, str] = {}
    for name in names:
        other = known.setdefault(fold(name), name)
        if other != name:
            return other, name
    return None


def first_of(names: Sequence[str]) -> str:
    """The first few names, for a message."""
    return ", ".join(map(short, names[:_NAMED])) + (", ..." if len(names) > _NAMED else "")


def short(text: str) -> str:
    """A name or label for a message, which need not repeat what is too long to be one."""
    return text if len(text) <= _LONG else f"{text[:_LONG]}... of {len(text)} characters"


def notes_on(root: Path, classes: Sequence[str], lacking: dict[str, Iterable[str]]) -> list[str]:
    """Notes on classes without images, and on those that are almost the same.

    Args:
        root: folder of the data set.
        classes: names of all of them.
        lacking: by what they lack, such as "training images", the names of classes.
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
