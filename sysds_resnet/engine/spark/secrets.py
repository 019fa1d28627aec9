"""Users' settings of Spark, in which secrets come from private files and from the environment."""

from __future__ import annotations

import os
import re
import shlex
import stat
from collections.abc import Sequence
from pathlib import Path

from sysds_resnet.engine.spark.properties import read_properties
from sysds_resnet.errors import UserError
from sysds_resnet.system.redaction import holds_secret

# a value that names a variable: env:NAME, env:{NAME}, $NAME or ${NAME}, and nothing else
_VARIABLE = re.compile(r"(?:env:|\$)(?P<name>[A-Za-z_]\w*)|(?:env:|\$)\{(?P<braced>[A-Za-z_]\w*)\}")


def pairs(name: str, texts: Sequence[str]) -> dict[str, str]:
    """Turns the NAME=VALUE texts of a setting into a mapping.

    Raises:
        UserError: If one has another form.
    """
    for text in texts:
        if not re.match(r"[^=\s]+=", text):
            shown = text.partition("=")[0] or text[:1]
            raise UserError(f"{name}: found {shown!r}, expected NAME=VALUE; correct it")
    return dict(text.split("=", 1) for text in texts)


def check_pairs(texts: Sequence[str]) -> None:
    """Checks the texts of --spark-conf, which others can see in the list of processes and in run folders.

    Raises:
        UserError: If one is not NAME=VALUE, or holds a secret instead of the name of a variable with it.
    """
    for name, value in pairs("spark_conf", texts).items():
        if value and not _VARIABLE.fullmatch(value) and holds_secret(name, value):
            raise UserError(
                f"spark_conf: found a secret as the value of {name}, expected none in a command or a run "
                "folder, which others can read; put it into a file for --spark-conf-file, or into a variable "
                f"for --spark-conf {name}=env:VARIABLE"
            )


def read_conf(texts: Sequence[str], path: Path | None) -> dict[str, str]:
    """Reads Spark's settings, with secrets, from --spark-conf-file and from --spark-conf, which wins.

    Raises:
        UserError: If the file cannot be read, or others can read it and it holds secrets, or a variable is
            not in the environment.
    """
    found = read_private(path) if path else {}
    for name, value in pairs("spark_conf", texts).items():
        found[name] = _resolved(name, value)
    return found


def read_private(path: Path) -> dict[str, str]:
    """Reads a file of Spark's settings, with the values of the variables that it names.

    Raises:
        UserError: If it cannot be read, or others can read it and it holds secrets, or a variable is not in
            the environment.
    """
    found = {name: _resolved(name, value) for name, value in read_properties(path).items()}
    secret = next((name for name, value in found.items() if holds_secret(name, value)), None)
    mode = stat.S_IMODE(path.stat().st_mode)
    if secret and mode & 0o077:
        raise UserError(
            f"{path}: found {secret} in a file with the mode {mode:03o}, expected that only you can read it; "
            f"run chmod 600 {shlex.quote(str(path))}"
        )
    return found


def shown_conf(texts: Sequence[str], path: Path | None) -> dict[str, str]:
    """Gives the settings of `read_conf` that are no secrets, and so may be printed in a command line."""
    given = (read_properties(path) if path else {}) | pairs("spark_conf", texts)
    return {
        name: value
        for name, value in given.items()
        if not _VARIABLE.fullmatch(value) and not holds_secret(name, value)
    }


def _resolved(name: str, value: str) -> str:
    """Gives a value, or that of the environment variable which it names."""
    if not (variable := _VARIABLE.fullmatch(value)):
        return value
    key = variable["name"] or variable["braced"]
    if key not in os.environ:
        raise UserError(
            f"spark_conf: found no variable {key} in the environment, expected one with the value of {name}; "
            "export it"
        )
    return os.environ[key]
