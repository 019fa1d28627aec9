"""A lock on a folder that one process writes into: it ends with the process, however that ends."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from sysds_resnet.errors import UserError, one_line

LOCK_FILE = ".lock"
# The errors of flock on file systems without locks, such as some of NFS and of object stores.
_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EBADF}


class FolderLock:
    """A lock on a folder until `release`, or until this process ends, for use in a `with` statement.

    The lock is the kernel's (flock), on a file in the folder that names the process that holds it. On a file
    system without locks, the file alone shows that the folder is held, until that process has ended.

    Args:
        folder: The folder, which must exist.
        work: What errors call the work in a folder that another process holds, such as "a run".
        note: A function that is given a text to show if the file system has no locks.

    Raises:
        UserError: If another process holds the folder, or no file can be made in it.
    """

    def __init__(self, folder: Path, work: str, note: Callable[[str], None]) -> None:
        self._folder, self._work, self._note = folder, work, note
        self._path = folder / LOCK_FILE
        self._file: int | None = None
        while self._file is None:
            self._file = self._take()

    def __enter__(self) -> FolderLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Lets other processes have the folder; a second call does nothing."""
        if self._file is not None:
            with suppress(OSError):  # the folder may be gone, or its disk
                self._path.unlink()
            with suppress(OSError):
                os.close(self._file)
            self._file = None

    def _take(self) -> int | None:
        """Opens and locks the file; gives None if the process that held it removed it meanwhile."""
        created = True
        try:
            try:
                file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            except FileExistsError:
                created = False
                file = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            if not self._folder.is_dir():
                raise UserError(f"{self._folder}: found no such folder, expected one to write to") from None
            return None
        except OSError as error:
            raise UserError(
                f"{self._folder}: cannot be written to ({one_line(error)}), expected a folder for new files; "
                "choose another, or change its permissions"
            ) from error
        try:
            self._lock(file, created)
            if not _same(file, self._path):  # removed meanwhile by the process that held it
                os.close(file)
                return None
            os.ftruncate(file, 0)
            os.pwrite(file, json.dumps(_us()).encode(), 0)
        except OSError as error:
            os.close(file)
            raise UserError(
                f"{self._path}: cannot be written ({one_line(error)}), expected room for a file; make room, "
                "or choose another folder"
            ) from error
        except BaseException:
            os.close(file)
            raise
        return file

    def _lock(self, file: int, created: bool) -> None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"{self._folder}: found {self._work} at work there, {_called(_holder(file))}, expected a "
                "folder that nobody else writes to; wait for its end, or choose another folder"
            ) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            if not created:
                self._check_ended(_holder(file))
            self._note(
                f"{self._folder}: its file system has no locks ({one_line(error)}); see that no other "
                "machine writes there"
            )

    def _check_ended(self, holder: dict[str, Any]) -> None:
        """Refuses a folder without locks, unless its file is of a process of this machine that has ended."""
        here = holder.get("host") == socket.gethostname()
        if not (here and not psutil.pid_exists(int(holder.get("pid", 0)))):
            raise UserError(
                f"{self._path}: found that {_called(holder)} writes to this folder, expected nobody; wait "
                "for its end, or remove this file if it has ended"
            )


def _us() -> dict[str, Any]:
    return {"pid": os.getpid(), "host": socket.gethostname()}


def _holder(file: int) -> dict[str, Any]:
    """Reads from a lock's file which process wrote it; gives an empty dict while it is being written."""
    try:
        found = json.loads(os.pread(file, 4096, 0))
        return found if isinstance(found, dict) else {}
    except (OSError, ValueError):
        return {}


def _called(holder: dict[str, Any]) -> str:
    if "pid" not in holder:
        return "another process"
    return f"process {holder['pid']} on {holder.get('host')}"


def _same(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except FileNotFoundError:
        return False
