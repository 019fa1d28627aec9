"""The scripts by which shells complete the commands of this package, their flags and the values of these."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, get_args, get_origin

import shtab

from sysds_resnet.settings.base import Settings
from sysds_resnet.settings.flags import kinds_of, make_parser
from sysds_resnet.system.command_lines import SCRIPT

SHELLS = ("bash", "zsh")


def completion(commands: Mapping[str, str], classes: Mapping[str, type[Settings] | None], shell: str) -> str:
    """Gives a script for a shell, by shtab.

    Args:
        commands: The name of each command, and what it does.
        classes: The class of each command's settings, if it has one.
        shell: The name of the shell, one of `SHELLS`.
    """
    parser = argparse.ArgumentParser(prog=SCRIPT)
    subcommands = parser.add_subparsers()
    for name, does in commands.items():
        settings = classes[name]
        parents = [] if settings is None else [make_parser(settings, every=True)]
        command = subcommands.add_parser(name, help=does, parents=parents, add_help=settings is None)
        for action in command._actions:
            if settings is not None and action.dest in settings.model_fields:
                _complete(action, kinds_of(settings, action.dest))
    return shtab.complete(parser, shell=shell)


def _complete(action: argparse.Action, kinds: tuple[object, ...]) -> None:
    """Says what completes the value of a flag: one of its choices, or the path of a file."""
    choices = [value for kind in kinds if get_origin(kind) is Literal for value in get_args(kind)]
    if choices:
        action.choices = choices
    elif Path in kinds or action.metavar in ("FOLDER", "RUN"):
        action.complete = shtab.FILE
