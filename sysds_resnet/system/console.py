"""Lines on standard output and standard error that end no run if they fail: a terminal or log may be gone."""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress
from typing import TextIO

from sysds_resnet.errors import printable

# Errors that may pass: there may be room again on the disk that a log is on.
_PASSING = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EAGAIN, errno.EINTR}


def say(text: str, stream: TextIO | None = None) -> None:
    """Prints a line, or goes on without it if that fails.

    Args:
        text: The line to print; characters that the stream cannot encode are escaped.
        stream: The stream to print to; by default standard output.
    """
    stream = sys.stdout if stream is None else stream
    if stream is None:  # it was closed before the program began
        return
    try:
        print(encodable(text, stream), file=stream, flush=True)
    except (OSError, ValueError) as error:  # ValueError: the stream was closed
        give_up(stream, error)


def warn(text: str) -> None:
    """Prints a warning on standard error, as one line."""
    _tell("warning", text)


def note(text: str) -> None:
    """Prints what users should know though nothing is wrong, as one line on standard error."""
    _tell("note", text)


def _tell(kind: str, text: str) -> None:
    if sys.stderr is not None:
        say(f"{kind}: {printable(text)}", sys.stderr)


def encodable(text: str, stream: TextIO) -> str:
    """Gives the text with escapes for characters that the stream's encoding lacks, as file names may hold."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def give_up(stream: TextIO, error: OSError | ValueError) -> bool:
    """Tells whether a stream that failed is gone for good; if so, drops what it still holds."""
    if isinstance(error, OSError) and error.errno in _PASSING:
        return False
    _let_go(stream)
    return True


def settle() -> None:
    """Writes what standard output and standard error still hold, or drops it, at the end of a command.

    Otherwise Python would try to write it once more, fail, and exit with code 120.
    """
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            try:
                stream.flush()
            except (OSError, ValueError):
                _let_go(stream)


def _let_go(stream: TextIO) -> None:
    """Redirects a standard stream of this process to the null device, so that what it holds is dropped."""
    if stream in (sys.__stdout__, sys.__stderr__):
        with suppress(OSError, ValueError):
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, stream.fileno())
            os.close(nothing)
