"""The way from the command line and YAML files to settings, and from errors to a line and an exit code."""

from __future__ import annotations

import io
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TextIO, TypeVar

from pydantic import ValidationError

from sysds_resnet.errors import NotAsAsked, UserError, printable
from sysds_resnet.settings.base import Settings
from sysds_resnet.settings.flags import read_flags, words_of
from sysds_resnet.settings.recipes import read_recipe
from sysds_resnet.settings.yaml_files import read_yaml
from sysds_resnet.system.console import say, settle, warn
from sysds_resnet.system.similar_names import did_you_mean

S = TypeVar("S", bound="Settings")
_LONGEST = 200  # how many characters of a value an error shows


def parse(settings: type[S], argv: Sequence[str], base: dict[str, Any] | None = None) -> S:
    """Makes settings from a command line and the YAML file that it names.

    Args:
        settings: The class of the settings.
        argv: The arguments of the command, without the program's name.
        base: Values for settings that neither flags nor the file give.

    Raises:
        UserError: If a name is unknown or a value does not fit.
        SystemExit: With code 0, after the help or a list was printed.
    """
    flags = read_flags(settings, argv)
    path = flags.get("config")
    return build(settings, {**(base or {}), **(read_yaml(Path(path)) if path else {}), **flags})


def build(settings: type[S], values: dict[str, Any]) -> S:
    """Makes settings from a mapping, and from the recipe that it names.

    Raises:
        UserError: If a name is unknown or a value does not fit.
    """
    recipe = values.get("recipe")
    if recipe is not None and "recipe" in settings.model_fields:
        values = {**read_recipe(str(recipe)).settings, **values}
    if unknown := [name for name in values if name not in settings.model_fields]:
        known = ", ".join(settings.model_fields)
        question = did_you_mean(unknown[0], settings.model_fields)
        raise UserError(f"{unknown[0]}: no such setting; expected one of {known}{question}")
    try:
        return settings(**values)
    except ValidationError as error:
        raise UserError(_what_does_not_fit(settings, error)) from error


def _what_does_not_fit(settings: type[Settings], error: ValidationError) -> str:
    first = error.errors()[0]
    name = str(first["loc"][0]) if first["loc"] else "settings"
    if first["type"] == "missing":
        return f"{name}: found nothing, expected a value; add {words_of(settings, name)}"
    expected = first["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    expected = expected.partition(", unable to parse")[0]
    if first["type"] == "path_type":
        expected = "a path, in quotes if it looks like a number"
    found = str(first["input"]) or "nothing"
    if len(found) > _LONGEST:
        found = f"{found[:_LONGEST]}..."
    return f"{name}: found {found}, expected {expected}"


def run(settings: type[S], command: Callable[[S], int | None], argv: Sequence[str] | None = None) -> int:
    """Runs a command and gives its exit code: 0, 2 for an error that users can mend, 130 for an interrupt.

    Args:
        settings: The class of its settings.
        command: The function to run on the settings; it may give another exit code than 0.
        argv: The arguments of the command; by default those of this process.
    """
    argv = sys.argv[1:] if argv is None else argv
    try:
        with printing_warnings():
            return command(parse(settings, argv)) or 0
    except (UserError, OSError) as error:
        if "--debug" in argv:
            traceback.print_exc()
        say(f"error: {printable(str(error))}", sys.stderr)
        return 2
    except KeyboardInterrupt:
        say("interrupted", sys.stderr)
        return 130
    finally:
        settle()


def refuse_command(name: str, known: Iterable[str]) -> int:
    """Prints that there is no command of this name, and which one may be meant; gives the exit code 2."""
    known = list(known)
    question = did_you_mean(name, known) or f": {', '.join(known)}"
    say(
        f"error: {printable(name)}: found no such command, expected one of those that exist{question}",
        sys.stderr,
    )
    return 2


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
    *,
    otherwise: Callable[..., None],
) -> None:
    """Prints this package's warnings as one line, and others as Python does."""
    if issubclass(category, NotAsAsked):
        warn(str(message))
    else:
        otherwise(message, category, filename, lineno, file, line)


@contextmanager
def printing_warnings() -> Iterator[None]:
    """Prints warnings of this package as lines, and names that standard output cannot encode with escapes."""
    with _printing_any_name(), warnings.catch_warnings():
        warnings.showwarning = partial(_show_warning, otherwise=warnings.showwarning)
        warnings.simplefilter("always", NotAsAsked)
        yield


@contextmanager
def _printing_any_name() -> Iterator[None]:
    """Makes standard output escape what its encoding lacks, for which Python would raise an error."""
    stream = sys.stdout
    strict = isinstance(stream, io.TextIOWrapper) and stream.errors == "strict"
    if strict:
        stream.reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        if strict:
            stream.reconfigure(errors="strict")
