"""The recipes: settings of `sysds_resnet.train` under a name, with only what differs from the defaults.

The file NAME.yaml in this folder has "about", "source", "accuracy" (what to expect, and where it was reached)
and "settings".
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sysds_resnet.errors import UserError

_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Recipe:
    """A recipe: what it is, where it comes from, what accuracy to expect, and its settings."""

    name: str
    about: str
    source: str
    accuracy: str
    settings: dict[str, Any]


def names() -> list[str]:
    """Gives the names of all recipes, shorter ones first, so that mlperf-4096 comes before mlperf-32768."""
    return sorted((path.stem for path in _FOLDER.glob("*.yaml")), key=lambda name: (len(name), name))


def read_recipe(name: str) -> Recipe:
    """Reads a recipe.

    Raises:
        UserError: If there is no recipe of this name.
    """
    if name not in names():
        raise UserError(f"recipe: found {name}, expected list or one of {', '.join(names())}; choose one")
    return Recipe(name, **yaml.safe_load((_FOLDER / f"{name}.yaml").read_text()))


def describe_all() -> str:
    """Describes all recipes for people, in four lines each."""
    recipes = map(read_recipe, names())
    return "\n".join(
        f"{recipe.name}\n    {recipe.about}\n    expected: {recipe.accuracy}\n    source: {recipe.source}"
        for recipe in recipes
    )
