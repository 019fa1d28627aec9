"""The one exception that users see."""


class UserError(Exception):
    """Something the user can put right.

    The message is one line that names the thing, what was found, what was expected and what to do.
    Commands print it without a traceback and exit with code 2.
    """


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


def printable(text: str) -> str:
    """A text whose control characters, and bytes of names that are not UTF-8, are written as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def one_line(error: BaseException) -> str:
    """What another library's exception says, in one line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return " ".join(str(error).split()) or type(error).__name__
