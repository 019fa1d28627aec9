"""The one exception that users see, and how text of others is shown in messages."""

from __future__ import annotations

import re

MAX_FOREIGN = 300
"""Most characters of what another library says that a message repeats."""

# What would move a terminal's cursor, start a line, or reorder the text around it: control characters, line
# separators, marks of direction; and surrogates, which stand for bytes of names that are not UTF-8.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


class UserError(Exception):
    """Something the user can put right.

    The message is one line that names the thing, what was found, what was expected and what to do.
    Commands print it without a traceback and exit with code 2. Control characters, which names of files and
    classes may hold, are escaped as by `printable`.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class NotFinite(UserError):
    """The loss or the gradient of a step is NaN or infinite; nothing was changed.

    Attributes:
        metrics: Of the step.
    """

    def __init__(self, message: str, metrics: object) -> None:
        super().__init__(message)
        self.metrics = metrics


class OutOfMemory(UserError):
    """A JVM ended because its heap was full: ours, or one of a cluster's."""


class EngineDied(UserError):
    """The engine's JVM ended, and not because its heap was full; another may go on in its place."""


class NotAsAsked(UserWarning):
    """Something is done in another way than was asked for, or more slowly than it could be.

    The message is one line that says what is done, why, and what to do about it. Commands print it on
    standard error.
    """


class NoSuchSplit(UserError):
    """A data set has no images for training, or none for validation."""


def one_line(error: BaseException) -> str:
    """What another library's exception says, in one line of at most `MAX_FOREIGN` characters."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    text = " ".join(str(error).split()) or type(error).__name__
    if len(text) <= MAX_FOREIGN:
        return text
    # what failed stands first, and the cause often last
    tail = MAX_FOREIGN // 3
    return f"{text[: MAX_FOREIGN - tail - 5]} ... {text[-tail:]}"


def printable(text: str) -> str:
    """A text with control characters, marks of direction and bytes that are not UTF-8 in escapes of Python.

    A name of a file or class may hold commands to the terminal, line ends, or what lets it look like another;
    none is left in the result, which is one line. What was escaped before stays as it is, and a line of JSON
    keeps its values.
    """
    return _UNPRINTABLE.sub(lambda found: _escape(found[0]), text)


def _escape(character: str) -> str:
    code = ord(character)
    return ascii(character)[1:-1] if code < 0x7F else f"\\u{code:04x}"  # JSON has no two-digit form
