"""The way from the command line and YAML files to settings, and from errors to a line and an exit code."""

from __future__ import annotations

import argparse
import io
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NoReturn, TextIO, TypeVar, get_args, get_origin

from pydantic import ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    CliSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from sysds_resnet.errors import NotAsAsked, UserError, one_line, printable
from sysds_resnet.settings.fields import facts_of, setting
from sysds_resnet.settings.recipes import read_recipe
from sysds_resnet.settings.yaml_files import read_yaml
from sysds_resnet.system.console import say, settle, warn
from sysds_resnet.system.redaction import refuse_passwords
from sysds_resnet.system.similar_names import did_you_mean

S = TypeVar("S", bound="Settings")
_LONGEST = 200  # how many characters of a value an error shows


class Settings(BaseSettings):
    """The base class of the settings of a command: frozen, with unknown names as errors.

    A value comes from the first of these that has it: the flags, the YAML file given with --config, the
    recipe if the command has recipes, the defaults. Environment variables are not read.
    """

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_hide_none_type=True,
        cli_avoid_json=True,
        protected_namespaces=(),
    )

    # The command's name, if it is not the name of the class without "Settings", in lower case.
    command: ClassVar[str | None] = None

    config: Path | None = setting(
        None, group="command", resume="free", description="YAML file of settings; flags win over it."
    )
    debug: bool = setting(False, group="command", resume="free", description="Show tracebacks.")

    @field_validator("*", mode="before")
    @classmethod
    def _usual_mistakes(cls, value: object, info: ValidationInfo) -> object:
        if value == "":  # a folder without a name would be the working directory
            raise ValueError("a value that is not empty")
        # pydantic would take true or false for 1 or 0
        values = value if isinstance(value, list) else [value]
        if any(isinstance(item, bool) for item in values) and not _mentions(
            cls.model_fields[info.field_name].annotation, bool
        ):
            raise ValueError("another value than true or false")
        return value

    @model_validator(mode="after")
    def _without_passwords(self) -> Settings:
        """Refuses passwords: settings are written down, printed and drawn."""
        for name in self.model_fields_set:
            value = getattr(self, name)
            refuse_passwords(name, value if isinstance(value, list) else [value])
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        **_: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Leaves only values that are passed in; pydantic puts a command line before them if there is one."""
        return (init_settings,)


def parse(settings: type[S], argv: Sequence[str], base: dict[str, Any] | None = None) -> S:
    """Makes settings from a command line and the YAML file that it names.

    Args:
        settings: The class of the settings.
        argv: The arguments of the command, without the program's name.
        base: Values for settings that neither flags nor the file give.

    Raises:
        UserError: If a name is unknown or a value does not fit.
        SystemExit: For --help (code 0) and unknown flags (code 2).
    """
    path = find_flag("config", argv)
    return build(settings, {**(base or {}), **(read_yaml(Path(path)) if path else {})}, argv)


def find_flag(name: str, argv: Sequence[str]) -> str | None:
    """Finds the value of a flag that decides how the others are read; None if it is not given."""
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    early.add_argument(f"--{name}")
    try:
        return getattr(early.parse_known_args(argv)[0], name)
    except argparse.ArgumentError:  # the flag has no value, which the parser of all flags will say
        return None


def build(settings: type[S], values: dict[str, Any], argv: Sequence[str] | None = None) -> S:
    """Makes settings from a mapping, from flags that win over it, and from the recipe that either names.

    Raises:
        UserError: If a name is unknown or a value does not fit.
        SystemExit: For --help (code 0) and unknown flags (code 2).
    """
    recipe = find_flag("recipe", argv or []) or values.get("recipe")
    if recipe is not None and "recipe" in settings.model_fields:
        values = {**read_recipe(str(recipe)).settings, **values}
    if unknown := [name for name in values if name not in settings.model_fields]:
        known = ", ".join(settings.model_fields)
        question = did_you_mean(unknown[0], settings.model_fields)
        raise UserError(f"{unknown[0]}: no such setting; expected one of {known}{question}")
    name = settings.command or settings.__name__.removesuffix("Settings").lower()
    program = f"python -m sysds_resnet.{name}"
    try:
        if argv is None:
            return settings(**values)
        flags = CliSettingsSource(
            settings,
            cli_parse_args=_repeat_flags(settings, argv),
            cli_prog_name=program,
            cli_exit_on_error=False,
            add_argument_method=_into_groups(settings),
        )
        return settings(**values, _cli_settings_source=flags)
    except SettingsError as error:
        found = one_line(error)
        if found.startswith(_WRONG_FLAGS):
            _refuse_flags(settings, program, found.removeprefix(_WRONG_FLAGS))
        raise UserError(f"flags: found a list with a stray quote ({found}); remove it") from error
    except ValidationError as error:
        raise UserError(_what_does_not_fit(error)) from error


def _into_groups(settings: type[Settings]) -> Callable[..., argparse.Action]:
    """Gives a substitute for `ArgumentParser.add_argument` that adds a flag to its setting's group."""
    names = {f"--{name.replace('_', '-')}": name for name in settings.model_fields}
    groups: dict[str, argparse._ArgumentGroup] = {}

    def add_argument(parser: argparse.ArgumentParser, *flags: str, **options: Any) -> argparse.Action:
        title = facts_of(settings, names[flags[0]]).get("group") if flags[0] in names else None
        if title is None:
            return parser.add_argument(*flags, **options)
        if title not in groups:
            groups[title] = parser.add_argument_group(title)
        return groups[title].add_argument(*flags, **options)

    return add_argument


_WRONG_FLAGS = "error parsing CLI: "  # what pydantic-settings puts before a message of argparse


def _refuse_flags(settings: type[Settings], program: str, found: str) -> NoReturn:
    """Ends a command as argparse does, but names the nearest right flags instead of all that exist."""
    known = {f"--{name.replace('_', '-')}": name for name in settings.model_fields}
    questions = ""
    if found.startswith("unrecognized"):
        wrong = [word.partition("=")[0] for word in found.split() if word.startswith("--")]
        questions = "".join(did_you_mean(word, known) for word in wrong)
    print(f"usage: {program} [options]; --help lists them", file=sys.stderr)
    print(f"{program}: error: {found}{questions}", file=sys.stderr)
    raise SystemExit(2)


def _what_does_not_fit(error: ValidationError) -> str:
    first = error.errors()[0]
    name = str(first["loc"][0]) if first["loc"] else "settings"
    if first["type"] == "missing":
        return f"{name}: found nothing, expected a value; add it"
    expected = first["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    if first["type"] == "path_type":
        expected = "a path, in quotes if it looks like a number"
    found = str(first["input"]) or "nothing"
    if len(found) > _LONGEST:
        found = f"{found[:_LONGEST]}..."
    return f"{name}: found {found}, expected {expected}"


def _mentions(annotation: object, kind: type) -> bool:
    """Tells whether a type is `kind`, or has it among its parts."""
    return annotation is kind or any(_mentions(part, kind) for part in get_args(annotation))


def _repeat_flags(settings: type[Settings], argv: Sequence[str]) -> list[str]:
    """Rewrites `--input A B` as `--input="A" --input="B"`, which is how pydantic-settings takes lists.

    Without the quotes it would read names with commas and brackets as lists.
    """
    fields = settings.model_fields.items()
    lists = {f"--{name.replace('_', '-')}" for name, field in fields if get_origin(field.annotation) is list}
    result: list[str] = []
    flag = None  # the flag of the list that is being read
    for argument in argv:
        name, equals, value = argument.partition("=")
        if argument.startswith("-") and argument != "-":
            flag = name if name in lists else None
            result += [f'{name}="{value}"' if flag and equals else argument]
        elif flag is None:
            result.append(argument)
        else:
            if result[-1] == flag:
                result.pop()
            result.append(f'{flag}="{argument}"')
    return result


def run(settings: type[S], command: Callable[[S], int | None], argv: Sequence[str] | None = None) -> int:
    """Runs a command and gives its exit code: 0, 2 for an error that users can mend, 130 for an interrupt.

    Args:
        settings: The class of its settings.
        command: The function to run on the settings; it may give another exit code than 0.
        argv: The arguments of the command; by default those of this process.
    """
    argv = sys.argv[1:] if argv is None else argv
    try:
        with _printing_any_name(), warnings.catch_warnings():
            warnings.showwarning = partial(_show_warning, otherwise=warnings.showwarning)
            warnings.simplefilter("always", NotAsAsked)
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
