"""The one exception that users see."""


class UserError(Exception):
    """Something the user can put right.

    The message is one line that names the thing, what was found, what was expected and what to do.
    Commands print it without a traceback and exit with code 2.
    """


class NoSuchSplit(UserError):
    """A data set has no images for training, or none for validation."""


def one_line(error: BaseException) -> str:
    """What another library's exception says, in one line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return " ".join(str(error).split()) or type(error).__name__
