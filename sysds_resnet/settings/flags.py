"""The flags of a command: its settings as an argparse parser, what was given, and the help."""

from __future__ import annotations

import argparse
import shutil
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from sysds_resnet.errors import UserError
from sysds_resnet.settings.base import Settings
from sysds_resnet.settings.fields import Group, facts_of
from sysds_resnet.settings.foreign_flags import FOREIGN
from sysds_resnet.settings.recipes import describe_all
from sysds_resnet.system.command_lines import program_name
from sysds_resnet.system.similar_names import did_you_mean

_FEW = 25  # a command with at most so many settings lists all of them by --help
_WIDEST = 100  # columns of the help; longer lines are hard to read
_VALUES = {int: "N", float: "X", Path: "PATH", str: "TEXT"}


def read_flags(settings: type[Settings], argv: Sequence[str]) -> dict[str, Any]:
    """Reads a command line. Gives the values of the settings in it: texts, lists of texts, True or False.

    Raises:
        UserError: If there is a word that is no flag and no value of one, or a value is missing.
        SystemExit: With code 0, after the help was printed, or the recipes for `--recipe list`.
    """
    parser = make_parser(settings)
    try:
        found, others = parser.parse_known_args(argv)
    except argparse.ArgumentError as error:
        raise UserError(_what_is_wrong(error)) from error
    if others:
        raise UserError(_unknown(others[0], settings))
    given = vars(found)
    if given.get("recipe") == "list":
        print(describe_all())
        raise SystemExit(0)
    return given


def make_parser(settings: type[Settings], every: bool = False) -> argparse.ArgumentParser:
    """Makes the parser of a command.

    Args:
        settings: The class of the command's settings.
        every: Whether its help lists all settings, rather than those that many people change.
    """
    program = program_name(_command(settings))
    names = settings.model_fields
    every = every or len(names) <= _FEW
    positional = [name for name in names if facts_of(settings, name)["positional"]]
    words = "".join(f" {_value(settings, name)}" for name in positional)
    parser = argparse.ArgumentParser(
        prog=program,
        usage=f"{program}{words} [options]",
        description=settings.__doc__,
        epilog=_epilog(settings, program),
        formatter_class=_Formatter,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
        exit_on_error=False,
        add_help=False,
    )
    for group in get_args(Group):
        heading = None
        for name in names:
            if facts_of(settings, name)["group"] == group:
                heading = heading or parser.add_argument_group(group)
                _add(heading, settings, name, every)
    help_ = parser.add_argument_group("help")
    help_.add_argument(
        "-h",
        "--help",
        action="help",
        help="List the settings that many people change." if len(names) > _FEW else "List all settings.",
    )
    if len(names) > _FEW:
        help_.add_argument(
            "--help-all", action=_HelpAll, nargs=0, settings=settings, help="List all settings."
        )
    return parser


def _command(settings: type[Settings]) -> str:
    return settings.command or settings.__name__.removesuffix("Settings").lower()


def _add(heading: argparse._ArgumentGroup, settings: type[Settings], name: str, every: bool) -> None:
    """Adds a setting to a group of the parser."""
    field, facts = settings.model_fields[name], facts_of(settings, name)
    options: dict[str, Any] = {"help": _description(settings, name)}
    if not (every or facts["common"] or facts["positional"]):
        options["help"] = argparse.SUPPRESS
    kind = _kind(field.annotation)
    if kind is bool:
        options["action"] = argparse.BooleanOptionalAction
    else:
        options["metavar"] = _value(settings, name)
        if get_origin(kind) is list:
            options |= {"nargs": "*"} if facts["positional"] else {"nargs": "+", "action": "extend"}
        elif facts["positional"]:
            options["nargs"] = "?"
    if facts["positional"]:
        heading.add_argument(name, **options)
    else:
        flags = [flag_of(name), *([facts["alias"]] if facts["alias"] else [])]
        heading.add_argument(*flags, dest=name, **options)


def kinds_of(settings: type[Settings], name: str) -> tuple[Any, ...]:
    """Gives the types that the value of a setting, or each value in its list, may have, None left out."""
    kind = _kind(settings.model_fields[name].annotation)
    if get_origin(kind) is list:
        kind = _kind(get_args(kind)[0])
    return kind if isinstance(kind, tuple) else (kind,)


def flag_of(name: str) -> str:
    """Gives the flag of a setting."""
    return f"--{name.replace('_', '-')}"


def words_of(settings: type[Settings], name: str) -> str:
    """Gives the words that set a setting on the command line, such as `--weights WEIGHTS`."""
    value = _value(settings, name)
    return value if facts_of(settings, name)["positional"] else f"{flag_of(name)} {value}"


def _kind(annotation: Any) -> Any:
    """Gives a type without None and without constraints; of several types, such as in `int | "auto"`, all."""
    if get_origin(annotation) is Annotated:
        return _kind(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        kinds = [_kind(part) for part in get_args(annotation) if part is not type(None)]
        return kinds[0] if len(kinds) == 1 else tuple(kinds)
    return annotation


def _value(settings: type[Settings], name: str) -> str:
    """Gives what the help calls the value of a setting."""
    facts = facts_of(settings, name)
    one = facts["value"] or "|".join(map(_of_kind, kinds_of(settings, name)))
    several = get_origin(_kind(settings.model_fields[name].annotation)) is list
    # argparse says by itself that a flag takes several values
    return f"{one} [{one} ...]" if several and facts["positional"] else one


def _of_kind(kind: Any) -> str:
    return "|".join(map(str, get_args(kind))) if get_origin(kind) is Literal else _VALUES[kind]


def _description(settings: type[Settings], name: str) -> str:
    """Gives the description of a setting with its default."""
    field, chosen = settings.model_fields[name], facts_of(settings, name)["chosen"]
    text = field.description.replace("%", "%%")
    if field.is_required() or field.default in (None, []) or (field.default is False and not chosen):
        return text
    shown = _shown(field.default)
    return f"{text} Default: {f'chosen for the data set; {shown} for digits' if chosen else shown}."


def _shown(default: Any) -> str:
    """Gives the default of a setting as the help shows it."""
    if isinstance(default, bool):
        return "on" if default else "off"
    values = default if isinstance(default, list) else [default]
    return " ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values)


def _epilog(settings: type[Settings], program: str) -> str | None:
    if not settings.examples:
        return None
    lines = [f"  {program} {words}".rstrip() + f"\n      {does}" for words, does in settings.examples.items()]
    return "\n".join(["examples:", *lines])


class _Formatter(argparse.HelpFormatter):
    """Formats the help: a switch as --[no-]name, a flag's value once, and the examples as they are."""

    def __init__(self, prog: str) -> None:
        super().__init__(
            prog, max_help_position=30, width=min(shutil.get_terminal_size().columns - 2, _WIDEST)
        )

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if isinstance(action, argparse.BooleanOptionalAction):
            return f"--[no-]{action.option_strings[0].removeprefix('--')}"
        if not action.option_strings or action.nargs == 0:
            return super()._format_action_invocation(action)
        value = f"{action.metavar} ..." if action.nargs == "+" else action.metavar
        return f"{', '.join(action.option_strings)} {value}"

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if text.startswith("examples:") else super()._fill_text(text, width, indent)


class _HelpAll(argparse.Action):
    """Prints the help with all settings, and ends the command."""

    def __init__(self, *args: Any, settings: type[Settings], **options: Any) -> None:
        super().__init__(*args, **options)
        self._settings = settings

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        print(make_parser(self._settings, every=True).format_help(), end="")
        parser.exit()


def _what_is_wrong(error: argparse.ArgumentError) -> str:
    name = (error.argument_name or "flags").partition("/")[0]
    if error.message.startswith("expected"):  # "expected one argument", or "at least one argument"
        return f"{name}: found no value, expected one; add it"
    if error.message.startswith("ignored explicit argument"):
        found = error.message.removeprefix("ignored explicit argument ")
        return f"{name}: found the value {found}, expected none; leave it out"
    return f"{name}: {error.message}"


def _unknown(word: str, settings: type[Settings]) -> str:
    """Says that a word is no flag, and which one was meant."""
    command = _command(settings)
    if not word.startswith("-"):
        return f"{word}: found a word that belongs to no flag, expected flags of {command}; --help lists them"
    flag = word.partition("=")[0]
    known = [flag_of(name) for name in settings.model_fields if not facts_of(settings, name)["positional"]]
    known.append("--help")
    own = [flag_of(name) for name in FOREIGN.get(flag.lstrip("-").replace("_", "-"), ())]
    meant = [name for name in own if name in known]
    question = f"; did you mean {' or '.join(meant)}?" if meant else did_you_mean(flag, known)
    return f"{flag}: found no such flag, expected those of {command}{question or '; --help-all lists them'}"
