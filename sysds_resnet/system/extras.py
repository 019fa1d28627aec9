"""Packages that not everybody has: those of the extras of this package, such as "plots" and "spark"."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, distribution

from sysds_resnet.errors import UserError, one_line
from sysds_resnet.system.command_lines import DISTRIBUTION, install_command, requirements_of


@contextmanager
def extra(name: str, what: str) -> Iterator[None]:
    """Imports packages of an extra within a `with` statement.

    Args:
        name: The name of the extra.
        what: What the packages are imported for; an error begins with it.

    Raises:
        UserError: If a package is not installed; it has the command that installs it.
    """
    try:
        yield
    except ImportError as error:
        raise UserError(
            f"{what}: found {one_line(error)}, expected the packages of the extra {name!r} to be installed; "
            f"run {install_command(name)}"
        ) from error


def installed_extras() -> dict[str, bool]:
    """Tells for each extra, but that of the tests, whether its packages are installed."""
    try:
        names = distribution(DISTRIBUTION).metadata.get_all("Provides-Extra") or []
    except PackageNotFoundError:  # this package is run from its source, without an installation
        names = []
    return {
        name: all(_installed(requirement) for requirement in requirements_of(name))
        for name in names
        if name != "test"
    }


def _installed(requirement: str) -> bool:
    package, _, marker = requirement.partition(";")
    if marker.strip():  # only some machines need it
        return True
    try:
        distribution(re.split(r"[\[<>=!~ ]", package.strip())[0])
    except PackageNotFoundError:
        return False
    return True
