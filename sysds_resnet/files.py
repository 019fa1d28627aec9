"""Files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


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
    """Whether a file has a name that `write_whole` gives while it writes."""
    return path.name.startswith(".") and path.name.endswith(".tmp")


def remove_temporary(folder: Path) -> None:
    """Removes what killed processes left unfinished in a folder that no other process writes to."""
    for path in filter(is_temporary, folder.iterdir()):
        path.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # file systems that cannot
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
