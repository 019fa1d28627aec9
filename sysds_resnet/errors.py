"""The errors and warnings that users see, and how text from elsewhere is shown in them."""

from __future__ import annotations

import re

MAX_FOREIGN = 300
"""The most characters of another library's text that a message repeats."""

# Characters that move a terminal's cursor, start a line, or reorder the text around them: control characters,
# line separators, marks of direction; and surrogates, which stand for bytes of names that are not UTF-8.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


class UserError(Exception):
    """An error that the user can put right.

    The message is one line that names the thing, what was found, what was expected and what to do.
    Commands print it without a traceback and exit with code 2. Control characters, which names of files and
    classes may hold, are escaped by `printable`.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class WrongValue(UserError, ValueError):
    """A `UserError` about a value, where callers expect Python's ValueError, as scikit-learn does."""


class NotFinite(UserError):
    """A NaN or an infinity in the loss or the gradient of a step, which then changed nothing.

    Attributes:
        metrics: The metrics of the step.
    """

    def __init__(self, message: str, metrics: object) -> None:
        super().__init__(message)
        self.metrics = metrics


class OutOfMemory(UserError):
    """The end of a JVM, the engine's or one of a cluster's, because its heap was full."""


class EngineDied(UserError):
    """The end of the engine's JVM, not because its heap was full; another may go on in its place."""


def error_of(kind: str, message: str) -> UserError:
    """Gives the error of another process by the name of its class, as far as a run goes on after it."""
    return {error.__name__: error for error in (EngineDied, OutOfMemory)}.get(kind, UserError)(message)


class NotAsAsked(UserWarning):
    """A warning that something is done in another way than was asked for, or more slowly than it could be.

    The message is one line that says what is done, why, and what to do about it. Commands print it on
    standard error.
    """


class NoSuchSplit(UserError):
    """The lack of images for training, or for validation, in a data set."""


class Undivided(NoSuchSplit):
    """The lack of a division into images for training and for validation: the data set has one kind."""


def one_line(error: BaseException) -> str:
    """Gives what an exception says on one line; that of a library is cut to `MAX_FOREIGN` characters."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    text = " ".join(str(error).split()) or type(error).__name__
    if len(text) <= MAX_FOREIGN:
        return text
    # messages often have what failed at their start, and the cause at their end
    tail = MAX_FOREIGN // 3
    return f"{text[: MAX_FOREIGN - tail - 5]} ... {text[-tail:]}"


def printable(text: str) -> str:
    """Gives a text with Python's escapes for control characters, marks of direction, and bytes not in UTF-8.

    The name of a file or class may hold commands to the terminal, line ends, or characters that let it look
    like another name; none is left in the result, which is one line. What was escaped before stays as it is,
    and a line of JSON keeps its values.
    """
    return _UNPRINTABLE.sub(lambda found: _escape(found[0]), text)


def _escape(character: str) -> str:
    code = ord(character)
    return ascii(character)[1:-1] if code < 0x7F else f"\\u{code:04x}"  # JSON has no two-digit form
