"""The comparison of lists of class names: whether the same numbers mean the same classes.

Networks and data sets know classes by their positions. Where both also have names, the names show whether a
position means the same on either side. This is the only place that compares them.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sysds_resnet.errors import UserError

_GRAVITY = ("order", "spelling", "name")  # kinds of differences, the most serious one first


@dataclass(frozen=True)
class Difference:
    """The most serious difference of two lists of class names, and of equally serious ones the first.

    Attributes:
        kind: "order" if the same name is another class in the other list, also if hyphens or underscores tell
            the two apart; "spelling" if only case, white space, invisible characters or Unicode's normal form
            tell a name from one in the other list; "name" if two names of a class are simply different ones,
            as synsets and words are, or differ by hyphens or underscores.
        index: The number of the class in the list that is compared.
        found: The name of the class in that list.
        expected: The name that the other list has for this class; for "spelling", the name there that looks
            like `found`.
        other: The number of the class that has this name, or one that looks like it, in the other list; for
            "name" it is `index`.
    """

    kind: Literal["order", "spelling", "name"]
    index: int
    found: str
    expected: str
    other: int


def compare_class_names(found: Sequence[str], expected: Sequence[str]) -> Difference | None:
    """Finds the most serious difference of two equally long lists of unique names; None if there is none."""
    places = {name: i for i, name in enumerate(expected)}
    folded = {fold(name): i for i, name in enumerate(expected)}
    ours = set(found)
    differences = []
    for i, (name, other) in enumerate(zip(found, expected, strict=True)):
        place = i if fold(name) == fold(other) else folded.get(fold(name))
        if name in places:
            if places[name] != i:
                differences.append(Difference("order", i, name, other, places[name]))
        elif place is None or expected[place] in ours:
            differences.append(Difference("name", i, name, other, i))
        elif _visible(name) == _visible(expected[place]):
            differences.append(Difference("spelling", i, name, expected[place], place))
        else:
            differences.append(Difference("order" if place != i else "name", i, name, other, place))
    return min(differences, key=lambda difference: _GRAVITY.index(difference.kind), default=None)


def check_class_names(
    found: Sequence[str], expected: Sequence[str], source: str, reference: str, advice: str
) -> str | None:
    """Refuses a list of class names by which a number would mean another class than it should.

    Args:
        found: The names of the classes in the order of their numbers.
        expected: The names that they must agree with, equally many.
        source: What errors call the place where `found` comes from.
        reference: What errors call the place where `expected` comes from.
        advice: What errors say on how to put a difference right.

    Returns:
        A note if some classes simply have other names, as synsets and words are: they are taken to be the
        same by their numbers. None if all names are equal.

    Raises:
        UserError: If a name is that of another class in `expected`, with or without hyphens and the like, or
            if only case, white space or Unicode's normal form tells it from a name there.
    """
    difference = compare_class_names(found, expected)
    if difference is None:
        return None
    if difference.kind == "name":
        return (
            f"{source}: class {difference.index} is {difference.found!r} there and {difference.expected!r} "
            f"in {reference}; classes are taken to be the same by their numbers"
        )
    raise UserError(f"{describe_difference(difference, source, reference)}; {advice}")


def describe_difference(difference: Difference, source: str, reference: str) -> str:
    """Gives the text of a message about a difference, without advice."""
    found, expected, where = difference.found, difference.expected, f"class {difference.index}"
    if difference.kind == "spelling":
        # names that look the same are shown by their code points
        show = (
            ascii if unicodedata.normalize("NFC", found) == unicodedata.normalize("NFC", expected) else repr
        )
        return (
            f"{source}: found {show(found)} for {where}, expected {show(expected)}, which is class "
            f"{difference.other} in {reference}; only case, white space or the Unicode form tells them apart"
        )
    text = f"{source}: found {found!r} for {where}, expected {expected!r} as in {reference}"
    return text + (f", where {found!r} is class {difference.other}" if difference.kind == "order" else "")


def fold(name: str) -> str:
    """Gives a name without case, white space, hyphens, underscores, invisible characters and Unicode forms.

    Names that are equal after this mean the same to people, or nearly so. Numbers keep their signs.
    """
    visible = _visible(name)
    if not any(c.isalpha() for c in visible):
        return visible
    return "".join(c for c in visible if c != "_" and unicodedata.category(c) != "Pd")


def _visible(name: str) -> str:
    """Gives a name without case, white space, invisible characters and the choice of a Unicode form."""
    visible = (
        c for c in unicodedata.normalize("NFKC", name) if not c.isspace() and unicodedata.category(c) != "Cf"
    )
    return unicodedata.normalize("NFKC", "".join(visible).casefold())
