"""The one exception that users see."""


class UserError(Exception):
    """Something the user can put right.

    The message is one line that names the thing, what was found, what was expected and what to do.
    Commands print it without a traceback and exit with code 2.
    """
