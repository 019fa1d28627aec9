"""Text in the CSV files that commands write, which people open in spreadsheets.

A spreadsheet takes a cell that begins with one of a few characters for a formula, quoted or not, and a
formula may send what is in other cells somewhere. Names of files and classes come from anybody.
"""

from __future__ import annotations

from sysds_resnet.errors import printable

FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What formulas begin with, in the wide forms of East Asian keyboards too.

Tabs and line ends, after which some spreadsheets look again, are escaped.
"""

MARK = "'"
"""Spreadsheets take what follows for text, and do not show it."""


def to_cell(text: str) -> str:
    """A name or reason as it stands in a cell: `printable`, and never a formula.

    Numbers are no text, so that -1.5 stays what it is.
    """
    text = printable(text)
    return MARK + text if _is_formula(text) else text


def from_cell(cell: str) -> str:
    """The printable text that `to_cell` made a cell of."""
    return cell[len(MARK) :] if cell.startswith(MARK) and _is_formula(cell) else cell


def _is_formula(text: str) -> bool:
    # or marked: a name may begin with a mark itself, and shall be read back with it
    return text.lstrip(MARK).startswith(FORMULA)
