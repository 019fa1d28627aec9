"""Folders for the engine's files: those to load libraries from, and those for memory that processes share.

SystemDS and JCuda copy their native libraries from the class path into the JVM's temporary folder and load
them there, which fails where a folder is mounted noexec, as /dev/shm is in a container and /tmp on hardened
machines.
"""

from __future__ import annotations

import errno
import mmap
import os
import shutil
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path

from sysds_resnet.errors import UserError, one_line
from sysds_resnet.system import forks
from sysds_resnet.system.files import user_cache

SHARED_MEMORY = Path("/dev/shm")
LONGEST_NAME = 76  # bytes in a folder's path: that of a socket in a private folder inside may have 107
SHARED_SIZE = 16 * 2**20  # bytes of the file for transfers: a quarter of the smallest usual /dev/shm
LIBRARY_SPACE = 32 * 2**20  # bytes: the largest libraries, JCuda's, have a few MB each; the rest is for logs


def candidates() -> list[Path]:
    """Lists the folders that libraries may be copied to, the best first.

    Files in memory do not outlive the machine's next start, even if the process could not remove them. The
    package's own folder is the last resort, since Python loads libraries from where packages are installed.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    found = [
        SHARED_MEMORY,
        *temporary_folders(),
        *([Path(runtime)] if runtime else []),
        *_cache(),
        Path(__file__).resolve().parents[1] / "native",
    ]
    return list(dict.fromkeys(found))


def temporary_folders() -> list[Path]:
    """Lists the folders for temporary files of this user and this machine, usable or not."""
    named = os.environ.get("TMPDIR")
    found = [Path(named).absolute()] if named else []
    try:
        found.append(Path(tempfile.gettempdir()))
    except FileNotFoundError:  # there is none that can be written to
        found.append(Path("/tmp"))
    return list(dict.fromkeys([*found, Path("/var/tmp")]))


def loading_problem(folder: Path) -> str | None:
    """Gives the reason why libraries cannot be copied to a folder and loaded from there, or None.

    To find out, it maps a page of a file there as executable, as the loader does with a library.
    """
    if len(os.fsencode(folder)) > LONGEST_NAME:
        return f"its name has more than {LONGEST_NAME} bytes"
    try:
        if folder in _cache():
            folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(mmap.PAGESIZE))
            file.flush()
            try:
                mapped = mmap.mmap(
                    file.fileno(), mmap.PAGESIZE, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC
                )
            except PermissionError:
                return (
                    "mounted noexec"
                    if os.statvfs(folder).f_flag & os.ST_NOEXEC
                    else "nothing may be run there"
                )
            mapped.close()
        space = os.statvfs(folder)
    except OSError as error:
        return "full" if error.errno == errno.ENOSPC else one_line(error)
    if space.f_bavail * space.f_frsize < LIBRARY_SPACE:
        return f"less than {LIBRARY_SPACE // 2**20} MB free"
    return None


def find_loadable() -> tuple[Path | None, str]:
    """Gives the first folder to load libraries from, or None and what is wrong with each candidate."""
    problems = []
    for folder in candidates():
        problem = loading_problem(folder)
        if problem is None:
            return folder, ""
        problems.append(f"{folder} ({problem})")
    return None, (
        f"found no folder that libraries can be loaded from: {', '.join(problems)}; set TMPDIR to a folder "
        "that is not mounted noexec"
    )


def describe_loading() -> str:
    """Describes where libraries are loaded from, and why not from the candidates before that folder."""
    loadable, why = find_loadable()
    passed = []
    for folder in candidates():
        if folder == loadable:
            break
        passed.append(f"{folder} is {loading_problem(folder)}")
    return f"loaded from {loadable}{''.join(f'; {text}' for text in passed)}" if loadable else why


def describe_sharing() -> str:
    """Describes through which folder arrays pass between this process and the JVM."""
    path = make_shared_file(SHARED_SIZE)
    path.unlink()
    if path.parent == SHARED_MEMORY:
        return f"through {SHARED_MEMORY}"
    return f"through files in {path.parent}: {SHARED_MEMORY} has no room for {SHARED_SIZE // 2**20} MB"


def loading_options() -> list[str]:
    """Gives options for a JVM that keeps Java's own temporary folder, /tmp, if libraries load from it.

    Such a JVM may put large files into its temporary folder too, so that memory is the last choice.
    """
    if loading_problem(Path("/tmp")) is None:
        return []
    on_disk = [folder for folder in candidates() if folder != SHARED_MEMORY]
    found = [folder for folder in [*on_disk, SHARED_MEMORY] if loading_problem(folder) is None]
    return [f"-Djava.io.tmpdir={folder}" for folder in found[:1]]


def make_private_folder() -> Path:
    """Makes a folder that only this user can enter; libraries load from it if they do from any candidate.

    Raises:
        UserError: If no folder can be written to.
    """
    loadable, _ = find_loadable()
    parents = [loadable] if loadable else candidates()
    problems = []
    for parent in parents:
        try:
            return Path(tempfile.mkdtemp(prefix="sysds_resnet_", dir=parent))
        except OSError as error:
            problems.append(f"{parent} ({one_line(error)})")
    raise UserError(
        f"temporary folder: found none that can be written to: {', '.join(problems)}; set TMPDIR to one that "
        "can"
    )


class PrivateFolder:
    """A folder that only this user can enter, which goes with the object.

    Attributes:
        path: The folder's path. `close` removes it, or else the end of this object or of the process.
    """

    def __init__(self) -> None:
        with forks.opening:
            self.path = make_private_folder()
            self._remove = weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)
            forks.register(self)

    def close(self) -> None:
        """Removes the folder."""
        self._remove()

    def disown(self) -> None:
        """Leaves the folder, in a forked process, to the process that made it."""
        self._remove.detach()


def make_shared_file(size: int, others: Sequence[Path] = ()) -> Path:
    """Makes a file for two processes to map: in memory if there is enough room, or else in a folder on disk.

    Args:
        size: The file's size in bytes, set aside at once, so that no access ends in a bus error later.
        others: The folders to try first, before those for temporary files, if /dev/shm is missing, full, too
            small or read-only.

    Raises:
        UserError: If no folder has room.
    """
    problems = []
    for folder in (SHARED_MEMORY, *others, *temporary_folders()):
        try:
            descriptor, name = tempfile.mkstemp(dir=folder, prefix="sysds_resnet_", suffix=".transfer")
        except OSError as error:
            problems.append(f"{folder} ({one_line(error)})")
            continue
        try:
            os.posix_fallocate(descriptor, 0, size)
            return Path(name)
        except OSError as error:
            os.unlink(name)
            problems.append(f"{folder} ({one_line(error)})")
        finally:
            os.close(descriptor)
    raise UserError(
        f"shared memory: found no folder with room for {size // 2**20} MB: {', '.join(problems)}; free some "
        "there, or give the container more with --shm-size"
    )


def _cache() -> list[Path]:
    """Gives the user's cache folder in a list, which is empty if the user has no home."""
    try:
        return [user_cache("sysds-resnet")]
    except UserError:
        return []
