"""Files of Java properties, the form of Spark's files of settings (spark-defaults.conf, --properties-file).

https://docs.oracle.com/en/java/javase/17/docs/api/java.base/java/util/Properties.html
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from sysds_resnet.errors import UserError, one_line

_ESCAPED = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}
_IN_NAMES, _IN_VALUES = r"[\\=: #!]", r"\\"  # characters that need a backslash
# A name ends at the first =, : or blank that has no backslash before it.
_ENTRY = re.compile(r"(?P<name>(?:\\.|[^\\=:\s])*)(?:\s*[=:]\s*|\s+|$)(?P<value>.*)", re.DOTALL)


def read_properties(path: Path) -> dict[str, str]:
    """Reads the properties in a file, and strips values of blanks around them as Spark does.

    Raises:
        UserError: If the file cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: found no readable file ({one_line(error)}), expected lines NAME=VALUE"
        ) from error
    entries = (_ENTRY.fullmatch(line) for line in _logical_lines(text))
    return {_unescape(entry["name"]): _unescape(entry["value"]).strip() for entry in entries}


def write_private_properties(path: Path, settings: Mapping[str, str]) -> None:
    """Writes a new file of properties that only this user can read.

    Raises:
        FileExistsError: If something with this name exists.
    """
    lines = [f"{_escape(name, _IN_NAMES)}={_escape(value, _IN_VALUES)}\n" for name, value in settings.items()]
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.writelines(lines)


def _logical_lines(text: str) -> Iterator[str]:
    """Gives the lines that are no comments, each joined with those that continue it after a backslash."""
    begun = ""
    for line in re.split(r"\r\n|\r|\n", text):
        line = line.lstrip(" \t\f")
        if not begun and (not line or line[0] in "#!"):
            continue
        begun += line
        if re.search(r"(?<!\\)(\\\\)*\\$", line):
            begun = begun[:-1]
            continue
        yield begun
        begun = ""
    if begun:
        yield begun


def _unescape(text: str) -> str:
    def character(found: re.Match[str]) -> str:
        code, letter = found.groups()
        return chr(int(code, 16)) if code else _ESCAPED.get(letter, letter)

    return re.sub(r"\\(?:u([0-9a-fA-F]{4})|(.))", character, text, flags=re.DOTALL)


def _escape(text: str, special: str) -> str:
    text = re.sub(special, lambda found: "\\" + found[0], text)
    for letter, character in _ESCAPED.items():
        text = text.replace(character, f"\\{letter}")
    return text
