"""Files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil

# safetensors writes a file beside the one that it is asked for, and renames it (from 0.6 on): 409 MB, for a
# checkpoint of ResNet-50, that a killed process leaves.
_OF_SAFETENSORS = re.compile(r"\.tmp[A-Za-z0-9]{6}")


def write_whole(writers: Mapping[Path, Callable[[Path], Any]]) -> None:
    """Writes files under temporary names beside their places, and renames them when all are on the disk.

    Args:
        writers: What writes each, given the temporary name, which begins with a dot.
    """
    temporary = {path: path.with_name(f".{path.name}.{os.getpid()}.tmp") for path in writers}
    try:
        for path, write in writers.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary[path].touch()
            mode = temporary[path].stat().st_mode
            write(temporary[path])
            temporary[path].chmod(mode)  # safetensors leaves 0600 whatever the umask
            with temporary[path].open("rb") as file:
                os.fsync(file.fileno())
        for path, name in temporary.items():
            os.replace(name, path)
        for folder in {path.parent for path in writers}:
            _sync_folder(folder)  # or a crash of the machine may take the new name back
    finally:
        for name in temporary.values():
            with contextlib.suppress(OSError):  # there is none when all went well
                name.unlink()


def is_temporary(path: Path) -> bool:
    """Whether a file has a name that `write_whole` gives while it writes, or safetensors within it."""
    name = path.name
    return (name.startswith(".") and name.endswith(".tmp")) or bool(_OF_SAFETENSORS.fullmatch(name))


def remove_temporary(folder: Path, shared: bool = False) -> None:
    """Removes what killed processes left unfinished in a folder; what cannot be removed stays.

    Args:
        folder: Only looked into itself, not below.
        shared: Whether other processes may be writing there: what names a process of this machine that is
            alive stays.
    """
    for path in filter(is_temporary, folder.iterdir()):
        if not (shared and _at_work(path)):
            with contextlib.suppress(OSError):
                path.unlink()


def _at_work(path: Path) -> bool:
    """Whether a temporary file's name is by another process that is alive."""
    process = path.name.rsplit(".", 2)[1]
    return process.isdigit() and int(process) != os.getpid() and psutil.pid_exists(int(process))


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # file systems that cannot
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
