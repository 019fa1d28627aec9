"""Text in the CSV files that commands write, which people open in spreadsheets.

A spreadsheet takes a cell that begins with one of a few characters for a formula, quoted or not, and a
formula may send what is in other cells somewhere. Names of files and classes come from anybody.
"""

from __future__ import annotations

from sysds_resnet.errors import printable

FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""The characters that formulas begin with, in the wide forms of East Asian keyboards too.

Tabs and line ends, after which some spreadsheets look for a formula again, are escaped by `to_cell`.
"""

MARK = "'"
"""The mark after which spreadsheets take a cell for text; they do not show it."""


def to_cell(text: str) -> str:
    """Gives a name or reason as the text of a cell: `printable`, and never a formula.

    Numbers are written without this function, so that -1.5 stays what it is.
    """
    text = printable(text)
    return MARK + text if _is_formula(text) else text


def from_cell(cell: str) -> str:
    """Gives the printable text that `to_cell` made a cell of."""
    return cell[len(MARK) :] if cell.startswith(MARK) and _is_formula(cell) else cell


def _is_formula(text: str) -> bool:
    # also behind marks: a name that begins with marks itself must be read back with them
    return text.lstrip(MARK).startswith(FORMULA)
