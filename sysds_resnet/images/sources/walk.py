"""The search for image files in folders and below, each real folder once, and what it leaves out."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import chain
from pathlib import Path

from sysds_resnet.errors import UserError, one_line
from sysds_resnet.images.sources.files import IMG_EXTENSIONS
from sysds_resnet.images.sources.tools import is_tool, kind_of_tool

_NAMED = 5  # kinds that a note names

_Key = tuple[int, int]  # device and inode of a real folder


def walk_images(folder: Path) -> list[str]:
    """Lists image files in `folder` and below, in the order of torchvision's ImageFolder."""
    return Walk([os.fspath(folder)]).images[0]


@dataclass
class LeftOut:
    """What lies among images and is no data.

    Attributes:
        tools: The number of files and folders of tools, by name.
        endings: The number of files with other endings than those of images, by ending in lower case.
        links: The links to folders that are listed anyway, or that lead back up.
        broken: The links to nothing; those that are called like images are images that cannot be read.
        images: The images that lie outside of the folders of the classes.
    """

    tools: Counter[str] = field(default_factory=Counter)
    endings: Counter[str] = field(default_factory=Counter)
    links: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    images: list[str] = field(default_factory=list)

    def file(self, name: str) -> None:
        """Counts a file that is no image."""
        self.endings[os.path.splitext(name)[1].lower() or "no ending"] += 1

    def notes(self, where: str) -> list[str]:
        """Gives a line for each kind of thing that was left out, which begins with `where`."""
        lines = []
        if self.tools:
            lines.append(f"{where}: left out as files and folders of tools: {counts(self.tools)}")
        if self.endings:
            lines.append(f"{where}: left out for endings that images do not have: {counts(self.endings)}")
        if self.links:
            lines.append(
                f"{where}: left out {len(self.links)} links to folders that are listed where they lie, or "
                f"that lead back up, the first: {self.links[0]}"
            )
        if self.broken:
            lines.append(
                f"{where}: left out {len(self.broken)} links to nothing, the first: {self.broken[0]}"
            )
        if self.images:
            lines.append(
                f"{where}: left out {len(self.images)} images outside of the folders of classes, the first: "
                f"{self.images[0]}"
            )
        return lines


def counts(kinds: Counter[str]) -> str:
    """Says how many there are of each of the most frequent kinds."""
    most = sorted(kinds.items(), key=lambda item: (-item[1], item[0]))
    lines = [f"{kind} {number}" for kind, number in most[:_NAMED]]
    rest = sum(number for _, number in most[_NAMED:])
    return ", ".join([*lines, f"others {rest}"] if rest else lines)


class Walk:
    """The images in some folders and below, such as those of classes.

    Links are followed. Each real folder counts once: in the folder where it lies, or else in the first that
    has a link to it. So links that lead back up, or across to another class, add nothing, and the search
    always ends.

    Args:
        folders: The folders to look in; a folder may be a link itself.
        around: The folders to which no links are followed, such as those around `folders`.

    Attributes:
        images: For each folder, the paths of its images in the order of torchvision's ImageFolder: by folder,
            and then by name.
        left_out: What is no image.
        shared: The links to images that belong to another of the folders too.

    Raises:
        UserError: If a folder cannot be read.
    """

    def __init__(self, folders: Sequence[str], around: Sequence[str | Path] = ()) -> None:
        self.left_out = LeftOut()
        self._seen: dict[_Key, int] = {_key(folder): -1 for folder in around}
        self._found: list[list[tuple[str, list[str]]]] = [[] for _ in folders]
        self._links: list[tuple[int, str]] = []  # links to folders
        self._linked: list[tuple[int, str, str]] = []  # images that are links, and what they point to
        for number, folder in enumerate(folders):
            if os.path.islink(folder):
                self._links.append((number, folder))
            else:
                self._enter(number, folder)
        for number, folder in self._links:  # the list grows on the way
            if _key(folder) in self._seen:
                self.left_out.links.append(folder)
            else:
                self._enter(number, folder)
        self.images = [
            [os.path.join(folder, name) for folder, names in sorted(found) for name in sorted(names)]
            for found in self._found
        ]
        self.shared = self._shared()

    def _enter(self, number: int, folder: str) -> None:
        waiting = [folder]
        while waiting:
            folder = waiting.pop()
            if (key := _key(folder)) in self._seen:
                continue  # a mount may show a folder in two places
            self._seen[key] = number
            images: list[str] = []
            self._found[number].append((folder, images))
            for entry in _scan(folder):
                if is_tool(entry.name):
                    self.left_out.tools[kind_of_tool(entry.name)] += 1
                elif _is_folder(entry):
                    if entry.is_symlink():
                        self._links.append((number, entry.path))
                    else:
                        waiting.append(entry.path)
                elif entry.name.lower().endswith(IMG_EXTENSIONS):
                    images.append(entry.name)
                    if entry.is_symlink():
                        self._linked.append((number, entry.path, os.readlink(entry.path)))
                elif entry.is_symlink() and not os.path.exists(entry.path):
                    self.left_out.broken.append(entry.path)
                else:
                    self.left_out.file(entry.name)

    def also_in(self, other: Walk) -> list[str]:
        """Lists the images that `other` has too, by links to the same files or folders."""
        there = {real for _, real in other._real_paths()}
        folders = {os.path.dirname(real) for real in there}
        return [path for path, real in self._real_paths(folders) if real in there]

    def _real_paths(self, within: Collection[str] | None = None) -> Iterator[tuple[str, str]]:
        """Gives each image's path, and its real path without links.

        If `within` is given, images of folders that hold no linked images and are not among these real
        folders are left out. Only folders are resolved, once each, as there may be millions of images.
        """
        targets = {path: target for _, path, target in self._linked}
        linked = {os.path.dirname(path) for path in targets}
        real = cache(os.path.realpath)
        for folder, names in chain.from_iterable(self._found):
            if within is not None and folder not in linked and real(folder) not in within:
                continue
            for name in names:
                path = os.path.join(folder, name)
                at, last = os.path.split(os.path.join(folder, targets.get(path, name)))
                yield path, os.path.join(real(at), last)

    def _shared(self) -> list[str]:
        """Lists links to images of other folders, or to what an image of another folder links to as well."""
        shared = []
        owners: dict[int, int] = {}  # by the hash of a path: there may be millions
        known: dict[str, tuple[_Key | None, int]] = {}
        for number, path, target in self._linked:
            folder, name = os.path.split(os.path.join(os.path.dirname(path), target))
            if folder not in known:
                key = _key(folder) if os.path.isdir(folder) else None
                known[folder] = key, self._seen.get(key, -1) if key else -1
            key, owner = known[folder]
            if owner < 0:
                owner = owners.setdefault(hash((key, name)), number)
            if owner != number:
                shared.append(path)
        return shared


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or to a name that is too long
        return False


def _key(folder: str | Path) -> _Key:
    try:
        found = os.stat(folder)
    except OSError as error:
        raise _unreadable(folder, error) from error
    return found.st_dev, found.st_ino


def _scan(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        raise _unreadable(folder, error) from error


def _unreadable(folder: str | Path, error: OSError) -> UserError:
    return UserError(f"folder {folder}: found {one_line(error)}, expected a readable folder: fix it")
