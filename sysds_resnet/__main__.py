"""The command sysds-resnet, which runs all others: sysds-resnet train, or python -m sysds_resnet train."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.metadata import version
from types import ModuleType

from sysds_resnet.errors import printable
from sysds_resnet.settings.base import Settings
from sysds_resnet.settings.command_line import refuse_command
from sysds_resnet.settings.completion import SHELLS, completion
from sysds_resnet.system.command_lines import DISTRIBUTION, SCRIPT
from sysds_resnet.system.console import say

COMMANDS = {
    "train": "train a network, or go on with a run",
    "evaluate": "compute the scores of a network on labelled images",
    "predict": "write the most probable classes of images",
    "prepare": "write a data set once, for faster reading or for DML programs",
    "verify": "find the images of a data set that cannot be read",
    "show": "draw the images as the network gets them",
    "convert": "convert weights between forms",
    "plot": "draw the curves of runs, or the learning rate of a run to come",
    "results": "print the results of runs as tables",
    "doctor": "look at this machine, and say what is missing",
    "spark-command": "print a line for spark-submit",
    "systemds": "run a DML program by SystemDS's command line",
}
_USAGE = f"""usage: {SCRIPT} COMMAND [options]

{{}}
  completion {"|".join(SHELLS)}    print what makes the shell complete commands and flags:
                         eval "$({SCRIPT} completion bash)" in ~/.bashrc

{SCRIPT} COMMAND --help describes a command; --version prints the version.
"""


def main(argv: list[str] | None = None) -> int:
    """Runs the command line, and gives the exit code."""
    name, *options = (sys.argv[1:] if argv is None else argv) or [""]
    if name == "--version":
        print(f"{SCRIPT} {version(DISTRIBUTION)}")
        return 0
    wants_help = name in ("help", "-h", "--help") or (name, *options[:1]) == ("completion", "--help")
    if not name or wants_help:
        rows = "\n".join(f"  {command:<22} {does}" for command, does in COMMANDS.items())
        print(_USAGE.format(rows), end="", file=sys.stdout if name else sys.stderr)
        return 0 if name else 2
    if name == "completion" and options and options[0] in SHELLS:
        print(completion(COMMANDS, {command: _settings(command) for command in COMMANDS}, options[0]))
        return 0
    if name == "completion":
        found = printable(" ".join(options)) or "no shell"
        say(f"error: completion: found {found}, expected {' or '.join(SHELLS)}", sys.stderr)
        return 2
    if name not in COMMANDS:
        return refuse_command(name, [*COMMANDS, "completion"])
    return _module(name).main(options)


def _settings(command: str) -> type[Settings] | None:
    """Gives the class of a command's settings; None for those that have subcommands or no settings."""
    return getattr(_module(command), f"{command.capitalize()}Settings", None)


def _module(command: str) -> ModuleType:
    return import_module(f"sysds_resnet.{command.replace('-', '_')}")


if __name__ == "__main__":
    sys.exit(main())
