"""Files on file systems that the machines of a cluster share."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, BinaryIO
from uuid import uuid4

from pyarrow import ArrowException
from pyarrow.fs import FileSystem, LocalFileSystem

from sysds_resnet.errors import UserError, one_line


def write_shared(path: str, write: Callable[[BinaryIO], Any]) -> None:
    """Writes a file on a file system that machines share: a path, or a URL such as hdfs://... or s3a://...

    It appears whole or not at all. Nothing is synced to the disk: it is for what can be written again.

    Raises:
        UserError: If it cannot be written.
    """
    try:
        system, name = open_system(path)
        temporary = f"{name}.{uuid4().hex}.tmp"  # a task that is thought lost may still be writing
        system.create_dir(os.path.dirname(name), recursive=True)
        with system.open_output_stream(temporary) as file:
            write(file)
        system.move(temporary, name)
    except (OSError, ArrowException) as error:
        raise UserError(
            f"{path}: cannot be written ({one_line(error)}), expected room in a folder that all machines "
            "share; check --scratch"
        ) from error


def is_url(name: str) -> bool:
    """Whether this is the URL of a file or folder, rather than a path of this machine."""
    return "://" in name


def absolute(name: str) -> str:
    """A URL, or a path from wherever a process runs."""
    return name if is_url(name) else os.path.abspath(os.path.expanduser(name))


def open_system(name: str) -> tuple[FileSystem, str]:
    """The file system of a path or URL, and the name in it.

    Raises:
        OSError, ArrowException: If there is no such file system.
    """
    if is_url(name):
        # Arrow has Hadoop's s3a under the name s3
        return FileSystem.from_uri(name.replace("s3a://", "s3://", 1))
    return LocalFileSystem(), name
