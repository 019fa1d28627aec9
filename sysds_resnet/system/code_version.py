"""The version of this project's code that runs."""

from __future__ import annotations

import json
import subprocess
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from sysds_resnet.system.command_lines import DISTRIBUTION

_PACKAGE = Path(__file__).resolve().parents[1]


def code_version() -> str:
    """Gives the name and, where they are known, the version and the commit of this project's code."""
    text = DISTRIBUTION
    with suppress(PackageNotFoundError):
        text += f" {distribution(DISTRIBUTION).version}"
    found = commit()
    return f"{text}, commit {found}" if found else text


def commit() -> str | None:
    """Gives the commit of this project's code, followed by "-dirty" if files differ from it; None if unknown.

    It is known in a clone, and where pip installed the package from a repository.

    Source: https://packaging.python.org/specifications/direct-url-data-structure/.
    """
    clone = _PACKAGE.parent
    if (clone / ".git").exists() and (clone / "pyproject.toml").exists():
        command = ["git", "-C", str(clone), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        with suppress(OSError, subprocess.SubprocessError):
            done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
            return done.stdout.strip() or None
        return None
    with suppress(PackageNotFoundError, ValueError, KeyError, TypeError):
        text = distribution(DISTRIBUTION).read_text("direct_url.json")
        return str(json.loads(text or "{}")["vcs_info"]["commit_id"])
    return None
