"""How to install what only some commands need."""

from __future__ import annotations

import shlex
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

_CLONE = Path(__file__).resolve().parents[1]


def install_hint(extra: str) -> str:
    """The command that installs an extra of this package, which is on no package index.

    In a clone that is pip install -e '.[EXTRA]'; where the package was installed from a wheel, the command
    names the packages that the extra consists of.

    Args:
        extra: Name of the extra in pyproject.toml, such as "spark".
    """
    if (_CLONE / "pyproject.toml").is_file():
        return f"run pip install -e '.[{extra}]' in {_CLONE}"
    return f"run {shlex.join(['pip', 'install', *_packages(extra)])}"


def _packages(extra: str) -> list[str]:
    """The packages of an extra, as pip takes them."""
    try:
        found = requires("sysds-resnet") or []
    except PackageNotFoundError:
        return [extra]
    packages = []
    for text in found:
        name, _, marker = (part.strip() for part in text.partition(";"))
        if f'extra == "{extra}"' in marker.replace("'", '"'):
            own = name.startswith("sysds-resnet[")
            packages += _packages(name.split("[")[1].split("]")[0]) if own else [name]
    return packages
