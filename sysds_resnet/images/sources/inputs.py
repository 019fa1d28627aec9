"""Images that the user names one by one: files, folders, lists in files, and a list on standard input."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from sysds_resnet.classes.file import is_text
from sysds_resnet.errors import UserError, one_line
from sysds_resnet.images.encoded import list_images
from sysds_resnet.system.files import decode_text, open_regular, user_path

STDIN = "-"
LIST_ENDING = ".txt"

MAX_LIST_BYTES = 2**30
"""The most bytes of a list, with room for ten million paths; longer lists are refused."""

BLOCK = 2**20  # bytes


def find_inputs(inputs: Sequence[str]) -> list[str]:
    """Lists the image files that some inputs name.

    Args:
        inputs: The inputs, each of which is an image; a folder, which is searched for images; a .txt file
            with a path in each line; or "-" for such lines on standard input. Paths in lists start at the
            working directory.

    Returns:
        The paths, at least one: inputs in their order, folders sorted, lists as they are. Whether listed
        files are there shows when they are read.

    Raises:
        UserError: If there is nothing at a path, a folder has no images, or a list has no lines.
    """
    paths: list[str] = []
    for name in inputs:
        if name == STDIN:
            paths += _lines(_read_standard_input(), "standard input")
        elif Path(name).suffix.lower() == LIST_ENDING and user_path(name).is_file():
            paths += _lines(_read(user_path(name)), name)
        else:
            paths += [str(path) for path in list_images(name)]
    for path in paths:
        if not path.isprintable() and ("\0" in path or not is_text(path)):
            raise UserError(f"images: found the name {path!r}, expected one in UTF-8: rename the file")
    return paths


def _read(path: Path) -> bytes:
    try:
        with open_regular(path) as file:
            data = file.read(MAX_LIST_BYTES + 1)
    except OSError as error:
        raise UserError(f"images {path}: found {one_line(error)}, expected a list of paths") from error
    return _checked(data, str(path))


def _read_standard_input() -> bytes:
    """Reads standard input up to its end, or up to a block that is no text, since a device may never end."""
    data = bytearray()
    while len(data) <= MAX_LIST_BYTES and (block := sys.stdin.buffer.read(BLOCK)):
        data += block
        if b"\0" in block:
            break
    return _checked(bytes(data), "standard input")


def _checked(data: bytes, source: str) -> bytes:
    if len(data) > MAX_LIST_BYTES:
        raise UserError(
            f"images {source}: found more than {MAX_LIST_BYTES} bytes, expected a path in each line: divide "
            "the list"
        )
    return data


def _lines(data: bytes, source: str) -> list[str]:
    lines = decode_text(data, f"images {source}").split("\n")
    paths = [line.removesuffix("\r") for line in lines if line.strip()]
    if not paths:
        raise UserError(f"images {source}: found no paths, expected one in each line: fill the list")
    return paths
