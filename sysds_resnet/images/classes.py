"""Names of classes: classes.txt, and names that are almost the same."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from sysds_resnet.class_names import fold
from sysds_resnet.errors import UserError
from sysds_resnet.files import read_text

CLASSES_FILE = "classes.txt"
_NAMED = 3  # classes that a note names


def classes_text(classes: Iterable[str]) -> str:
    """The text of a classes.txt, which `named_classes` reads."""
    return "".join(f"{name}\n" for name in classes)


def named_classes(root: Path, number: int | None = None) -> list[str] | None:
    """Class names from classes.txt, one in a line in the order of the labels, if there is one.

    Args:
        root: folder of the data set.
        number: classes that must have a name at least.

    Raises:
        UserError: it is not text in UTF-8, names a class twice, or too few.
    """
    path = root / CLASSES_FILE
    if not path.exists():
        return None
    names = [line.strip() for line in read_text(path).split("\n") if line.strip()]
    if len(set(names)) < len(names) or (number is not None and len(names) < number):
        raise UserError(
            f"{path}: found {len(set(names))} different names in {len(names)} lines, expected one for each "
            f"of {number or len(names)} classes: correct the file"
        )
    return names


def check_class_names(names: Iterable[str], where: str | Path) -> None:
    """Refuse names that a classes.txt cannot hold: empty ones, of several lines, or not in UTF-8.

    Raises:
        UserError: it names the place and the name.
    """
    for name in names:
        if not name.strip() or "\n" in name or "\r" in name or not is_text(name):
            raise UserError(
                f"{where}: found the class name {name!r}, expected a line of text in UTF-8: rename the class"
            )


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
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")


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
            f"data set {root}: the classes {pair[0]!r} and {pair[1]!r} differ by case, spaces, hyphens or "
            "Unicode's normal form alone"
        )
    return notes
