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
    finally:
        for name in temporary.values():
            with contextlib.suppress(OSError):  # there is none when all went well
                name.unlink()
