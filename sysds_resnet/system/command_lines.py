"""Command lines that messages tell the user to run: they name the interpreter that has this package."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

DISTRIBUTION = "sysds-resnet"
SCRIPT = "sysds-resnet"


def own_command(module: str, *arguments: object) -> str:
    """Gives the line for a shell that runs a command of this package, as the one that runs now was called.

    Args:
        module: The name of the module in sysds_resnet, such as "train".
        arguments: The arguments of the command; each is quoted where a shell needs that.
    """
    words = [interpreter(), "-m", f"sysds_resnet.{module}"]
    if Path(sys.argv[0]).name == SCRIPT:
        words = [_shortest(sys.argv[0], [SCRIPT]), module.replace("_", "-")]
    return shlex.join([*words, *map(str, arguments)])


def program_name(command: str) -> str:
    """Gives the name by which a command of this package was called, for its help.

    Args:
        command: The command's name, such as "spark-command dml".
    """
    if Path(sys.argv[0]).name == SCRIPT:
        return f"{SCRIPT} {command}"
    return f"python -m sysds_resnet.{command.replace('-', '_')}"


def install_command(extra: str) -> str:
    """Gives the line for a shell that installs the packages of one of this package's extras, such as "spark".

    It names the packages themselves, since this package need not be on the index that pip asks.
    """
    arguments = requirements_of(extra) or ["-e", f".[{extra}]"]
    return shlex.join([interpreter(), "-m", "pip", "install", *arguments])


def requirements_of(extra: str) -> list[str]:
    """Gives the requirements of one of this package's extras; none if this package is not installed."""
    try:
        listed = requires(DISTRIBUTION) or []
    except PackageNotFoundError:  # this package is run from its source, without an installation
        listed = []
    return [
        "; ".join(part for part in _without_extra(requirement) if part)
        for requirement in listed
        if re.search(rf"extra == ['\"]{re.escape(extra)}['\"]", requirement)
    ]


def interpreter() -> str:
    """Gives the shortest name by which a shell in the working directory runs this Python, unquoted.

    That is "python" where the shell would find the same one, a path relative to the working directory where
    it is below that, and an absolute path elsewhere.
    """
    if not sys.executable:  # Python is embedded in another program
        return "python"
    return _shortest(sys.executable, ["python", "python3"])


def _shortest(program: str, names: Sequence[str]) -> str:
    """Gives one of the names of a program if a shell finds it by that, or else its path."""
    for name in names:
        found = shutil.which(name)
        if found and _place(found) == _place(program):
            return name
    path = Path(program).absolute()
    try:
        return str(path.relative_to(Path.cwd()))
    except (ValueError, OSError):  # elsewhere, or the working directory is gone
        return str(path)


def _place(program: str) -> tuple[str, str]:
    """Gives what tells interpreters apart: in virtual environments they are links to one program."""
    return os.path.realpath(os.path.dirname(program)), os.path.realpath(program)


def _without_extra(requirement: str) -> tuple[str, str]:
    """Splits a requirement into its package and its marker, without the extra in the marker."""
    name, _, marker = requirement.partition(";")
    marker = re.sub(r"(\s+and\s+)?extra == ['\"][^'\"]*['\"]", "", marker).strip()
    # in a shell's single quotes, double ones can be read
    return name.strip(), marker.removeprefix("(").removesuffix(")").replace("'", '"')
