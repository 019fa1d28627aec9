"""Files that are written whole or not at all, and files from others that are read with care."""

from __future__ import annotations

import codecs
import contextlib
import errno
import os
import re
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import psutil
from platformdirs import user_cache_path

from sysds_resnet.errors import UserError, one_line

_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",  # comes before UTF-16, with whose mark it begins
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
# Temporary names: those of `write_whole`, and those of safetensors, which writes beside the file that it is
# asked for. A killed process leaves such files: 409 MB for a checkpoint of ResNet-50.
_TEMPORARY = re.compile(r"\..+\.\d+\.tmp|\.tmp[A-Za-z0-9]{6}")

_MAX_NAME = 240  # bytes; leaves room for what a temporary name adds


def write_whole(writers: Mapping[Path, Callable[[Path], Any]]) -> None:
    """Writes files under temporary names beside their places, and renames them when all are on the disk.

    Args:
        writers: The function that writes each file. It is given the temporary name, which begins with a dot.
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
            _sync_folder(folder)  # without this, a crash of the machine may undo the renaming
    finally:
        for name in temporary.values():
            with contextlib.suppress(OSError):  # when all went well, the file has been renamed
                name.unlink()


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Gives a folder to fill, which gets its name when all is in it, or else is removed.

    Raises:
        UserError: If something of this name is there already.
    """
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise UserError(f"{path}: found a file or folder there, expected none; remove it or choose another")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as temporary:
        folder = Path(temporary).resolve() / path.name
        folder.mkdir()
        yield folder
        folder.rename(path)


def user_path(path: str | os.PathLike[str]) -> Path:
    """Gives the path that a user wrote, in which ~ stands for the user's home.

    Raises:
        UserError: If the path begins with ~ and there is no such user, or this user has no home.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UserError(
            f"{path}: found no home for {Path(path).parts[0]}, expected one; give the path without it"
        ) from error


def user_cache(name: str) -> Path:
    """Gives this user's folder for files that can be made again.

    Raises:
        UserError: If the user has no home: the folder would be one called ~ in the working directory.
    """
    try:
        folder = user_cache_path(name)
    except RuntimeError:
        folder = None
    if folder is None or not folder.is_absolute():  # older versions of platformdirs give such
        raise UserError("cache folder: found no home of this user, expected one; set HOME or XDG_CACHE_HOME")
    return folder


def check_place(out: Path) -> None:
    """Refuses a place for --out where no file can be written, before hours of reading."""
    above = next(folder for folder in out.absolute().parents if os.path.lexists(folder))
    reason = None
    if len(os.fsencode(out.name)) > _MAX_NAME:
        reason = "a name that is too long"
    elif out.is_dir():
        reason = "a folder"
    elif not above.is_dir():
        reason = f"{above}, which is no folder"
    elif not os.access(above, os.W_OK | os.X_OK):
        reason = f"{above}, which cannot be written to"
    if reason:
        raise UserError(f"{out}: found {reason}, expected a place for a file: choose another --out")


def is_temporary(path: Path) -> bool:
    """Tells whether a file has a temporary name, from `write_whole` or from safetensors within it."""
    return bool(_TEMPORARY.fullmatch(path.name))


def remove_temporary(folder: Path, shared: bool = False) -> None:
    """Removes the temporary files that killed processes left in a folder; what cannot be removed stays.

    Args:
        folder: The folder; folders in it are not looked into.
        shared: Whether other processes may be writing there. Then files stay whose names hold the number of
            another process that is alive on this machine.
    """
    for path in filter(is_temporary, folder.iterdir()):
        if not (shared and _at_work(path)):
            with contextlib.suppress(OSError):
                path.unlink()


def _at_work(path: Path) -> bool:
    """Tells whether a temporary file's name holds the number of another process that is alive."""
    process = path.name.rsplit(".", 2)[1]
    return process.isdigit() and int(process) != os.getpid() and psutil.pid_exists(int(process))


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some file systems cannot
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Opens a regular file to read from it.

    Anything else that has a name, such as a pipe or a device, is refused rather than waited for: it may never
    give a byte, or never end.

    Raises:
        OSError: If the file cannot be opened or is not a regular one.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise OSError(errno.ENXIO, "a socket or a device that is not there", os.fspath(path)) from error
        raise
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return open(descriptor, "rb")
    os.close(descriptor)
    code = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
    raise OSError(code, _KINDS.get(stat.S_IFMT(mode), "no regular file"), os.fspath(path))


def read_text(path: str | os.PathLike[str]) -> str:
    """Reads a text file in UTF-8, with or without a byte order mark.

    Raises:
        UserError: If the file cannot be read, or is in another encoding.
    """
    try:
        with open_regular(path) as file:
            data = file.read()
    except OSError as error:
        raise UserError(f"{path}: found {one_line(error)}, expected a text file: check the path") from error
    return decode_text(data, path)


def decode_text(data: bytes, name: str | os.PathLike[str]) -> str:
    """Decodes the text of a file in UTF-8, with or without a byte order mark.

    Args:
        data: The content of the file.
        name: What errors call the file.

    Raises:
        UserError: If the text is in another encoding, or is no text.
    """
    marked = next((encoding for mark, encoding in _MARKS.items() if data.startswith(mark)), None)
    try:
        if marked is None and b"\0" not in data:
            return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        pass
    if encoding := marked or _encoding_without_mark(data):
        raise UserError(
            f"{name}: found text that seems to be in {encoding}, expected UTF-8: save it as UTF-8, such "
            f"as with iconv -f {encoding} -t UTF-8"
        )
    raise UserError(f"{name}: found bytes that are no text, expected text in UTF-8: check the file")


def _encoding_without_mark(data: bytes) -> str | None:
    """Guesses the encoding of bytes that are not UTF-8; gives None if they do not look like text."""
    if b"\0" in data:  # in UTF-16, European languages have a 0 in every second byte
        even, odd = data[::2].count(0), data[1::2].count(0)
        if max(even, odd) > len(data) / 5 and min(even, odd) < len(data) / 50:
            return "UTF-16LE" if odd > even else "UTF-16BE"
        return None
    if any(byte < 32 and byte not in b"\t\n\r\f\v" for byte in data[:10_000]):
        return None
    return "WINDOWS-1252" if any(0x80 <= byte < 0xA0 for byte in data) else "ISO-8859-1"
