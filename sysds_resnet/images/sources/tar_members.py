"""The contents of a tar file of WebDataset's convention: its images, and the label of each."""

from __future__ import annotations

import json
import math
import os
import tarfile
from collections import Counter
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import numpy as np

from sysds_resnet.classes.file import first_of, is_text
from sysds_resnet.errors import UserError, one_line
from sysds_resnet.images.sources.files import IMG_EXTENSIONS, LFS, refuse_pointer
from sysds_resnet.images.sources.tools import is_tool
from sysds_resnet.system.files import decode_text, open_regular
from sysds_resnet.system.texts import Texts

MAX_LABEL = 2**20
"""The most bytes of a member that holds a label; a larger one is refused."""

_LABELS = (".cls", ".json", ".txt")  # endings of members with labels; the first that is there counts
_MAX_HEADER = 2**20  # bytes that a header with a long name may have
_AFTER = 2**20  # bytes after the end of a tar file that are looked at
_SHOWN = 60  # characters of JSON without a label that an error shows
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")

Place = tuple[int, int]
"""The first byte and number of bytes of a member; negative if it is sparse, with its bytes elsewhere."""


@dataclass(frozen=True)
class Members:
    """The images of a tar file, in its order.

    Attributes:
        places: The `Place` of each image, int64 of shape (n, 2).
        keys: The name of each image without its ending, n of them.
        labels: The labels as they stand in the file, text of shape (n,).
        left_out: The number of members that are neither an image nor the label of one, by kind.
        complete: Whether the mark is there that a writer puts at the end.
    """

    places: np.ndarray
    keys: Texts
    labels: np.ndarray
    left_out: Counter[str]
    complete: bool


def read_members(path: Path) -> Members:
    """Reads all headers and labels of a tar file.

    A label is the text of KEY.cls, or "label" in KEY.json, or the text of KEY.txt. The key of an image is its
    name up to the last dot if there is a label under that; else, by WebDataset's convention, up to the first
    dot, if that gives each key one image.

    Raises:
        UserError: If the file is damaged, compressed or no tar file; an image is sparse or has no label;
            there are two under one key; or a label is no text or too long.
    """
    try:
        state = os.stat(path)
    except OSError as error:
        raise _damaged(path, error) from error
    return _read_members(path, state.st_size, state.st_mtime_ns, state.st_ino)


@lru_cache(maxsize=8192)  # either split needs all files to know the classes, so a run opens each twice
def _read_members(path: Path, *_state: int) -> Members:
    found = _Members(path)
    try:
        with open_regular(path) as file:
            head = file.read(len(LFS))
            refuse_pointer(path, head)
            if head.startswith(_COMPRESSED):
                raise tarfile.ReadError("it is compressed")
            file.seek(0)
            complete = _read_headers(file, found)
            return found.match(file, complete)
    except UserError:
        raise
    except Exception as error:  # tarfile parses whatever it finds
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> UserError:
    return UserError(
        f"{path}: found a damaged tar file ({one_line(error)}), expected an uncompressed one with KEY.jpg "
        "and KEY.cls: write it again"
    )


class _Headers:
    """A file that gives `tarfile` headers only, as it refuses to read much at a time."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _MAX_HEADER:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return self._file.read(size)


def _read_headers(file: BinaryIO, found: _Members) -> bool:
    """Reads the headers of all members, and tells whether the mark is there that ends the last."""
    size = os.fstat(file.fileno()).st_size
    with tarfile.open(fileobj=_Headers(file), mode="r:") as archive:
        last = -1
        while (member := archive.next()) is not None:
            if member.offset <= last:
                raise tarfile.ReadError("headers that lead back")
            last = member.offset
            archive.members.clear()  # tarfile would keep them all
            if member.isreg():
                if member.size < 0 or (member.offset_data + member.size > size and not member.issparse()):
                    raise tarfile.ReadError(f"{member.name} would go beyond the end of the file")
                found.add(member)
            elif member.issym() or member.islnk():
                found.links.add(member.name)
        file.seek(min(archive.offset, size))
    rest = file.read(_AFTER)
    if rest.strip(b"\0"):
        raise tarfile.ReadError("more after its end, as of a damaged header or of files that were joined")
    return bool(rest)


@dataclass
class _Members:
    """The members of a tar file by their names without the last ending.

    Attributes:
        path: The path of the file.
        images: The place of each image.
        labels: The places of the labels under a name, by their endings.
        left_out: The number of members that are neither an image nor the label of one, by kind.
        links: The names of members that are links, and have no bytes of their own.
    """

    path: Path
    images: dict[str, Place] = field(default_factory=dict)
    labels: dict[str, dict[str, Place]] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)
    links: set[str] = field(default_factory=set)

    def add(self, member: tarfile.TarInfo) -> None:
        """Adds a member to the images, the labels, or what is left out."""
        if not is_text(member.name):
            raise UserError(
                f"{self.path}: found a member called {member.name!r}, expected a name in UTF-8: write the "
                "file again with one"
            )
        stem, ending = os.path.splitext(member.name)
        ending = ending.lower()
        place = (-1, -1) if member.issparse() else (member.offset_data, member.size)
        if any(is_tool(part) for part in member.name.split("/") if part not in (".", "..")):
            self.left_out["files of tools"] += 1
        elif ending in IMG_EXTENSIONS:
            if place[0] < 0:
                raise UserError(
                    f"{self.path}: found the sparse member {member.name}, expected all its bytes: write the "
                    "file again without --sparse"
                )
            if stem in self.images:
                raise self._several(stem, "two images")
            self.images[stem] = place
        elif ending in _LABELS:
            if ending in self.labels.setdefault(stem, {}):
                raise self._several(stem, f"{ending} twice")
            self.labels[stem][ending] = place
        else:
            self.left_out[ending or "no ending"] += 1

    def match(self, file: BinaryIO, complete: bool) -> Members:
        """Gives the images of the file, each with its label."""
        self.left_out.update({"links": len(self.links)} if self.links else {})
        keys = self._keys()
        known: dict[str, str] = {}  # each label once in memory
        labels = [self._label(file, key) for key in keys.values()]
        labels = [known.setdefault(label, label) for label in labels]
        for key in self.labels.keys() - set(keys.values()):
            self.left_out.update(f"{ending} without an image" for ending in self.labels[key])
        return Members(
            np.array([self.images[stem] for stem in keys], np.int64).reshape(-1, 2),
            Texts(keys),
            np.array(labels, object),
            self.left_out,
            complete,
        )

    def _keys(self) -> dict[str, str]:
        """Gives, for the name of each image without its ending, the name under which its label is."""
        keys = {}
        shared: dict[str, list[str]] = {}
        for stem in self.images:
            folder, slash, name = stem.rpartition("/")
            first = folder + slash + name.partition(".")[0]
            keys[stem] = stem if stem in self.labels else first
            if keys[stem] not in self.labels:
                raise self._without_label(stem)
            if stem != keys[stem]:
                shared.setdefault(first, []).append(stem)
        for first, stems in shared.items():
            if first in self.images:  # the label is for that one; the others, such as masks, go with it
                for stem in stems:
                    del keys[stem]
                self.left_out["images beside that of their key"] += len(stems)
            elif len(stems) > 1:
                raise self._several(first, f"{len(stems)} images ({first_of(stems)})")
        return keys

    def _label(self, file: BinaryIO, key: str) -> str:
        hint = ""
        for ending in _LABELS:
            if ending not in self.labels[key]:
                continue
            offset, size = self.labels[key][ending]
            name = f"{self.path}/{key}{ending}"
            if not 0 <= size <= MAX_LABEL:
                raise UserError(
                    f"{name}: found {'a sparse member' if size < 0 else f'{size} bytes'}, expected a label "
                    f"of at most {MAX_LABEL} bytes: write the file again"
                )
            text = decode_text(os.pread(file.fileno(), size, offset), name).strip()
            label = _label_in_json(text, name) if ending == ".json" else text
            if label:
                return label
            if ending == ".json":
                hint = f", or a name or number for 'label' in {key}.json, which holds {text[:_SHOWN]!r}"
        raise self._without_label(key, hint)

    def _without_label(self, key: str, hint: str = "") -> UserError:
        if links := sorted(self.links & {f"{key}{ending}" for ending in _LABELS}):
            hint = f" with bytes of its own, as {links[0]} is a link"
        return UserError(f"{self.path}: found {key} without a label, expected {key}.cls{hint}: add it")

    def _several(self, key: str, what: str) -> UserError:
        return UserError(
            f"{self.path}: found {what} under the key {key}, expected one image and one label under each: "
            "name the members apart"
        )


def _label_in_json(text: str, name: str) -> str | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{name}: found no JSON ({one_line(error)}), expected a 'label' in it") from error
    label = found.get("label") if isinstance(found, dict) else None
    if isinstance(label, float) and not math.isfinite(label):
        return None  # else NaN and 1e999 would be names of classes
    return str(label).strip() if isinstance(label, (str, int, float)) else None
