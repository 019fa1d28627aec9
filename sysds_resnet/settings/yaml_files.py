"""The reading of settings from YAML files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from sysds_resnet.errors import UserError
from sysds_resnet.system.files import decode_text, open_regular

_MOST_BYTES = 2**20  # no settings take more


class _Loader(yaml.SafeLoader):
    """A loader of YAML without what nobody means: a name that comes twice, 1:30 as 90, 010 as 8, and dates.

    yaml.safe_dump puts quotes around every text that this loader would otherwise read as something else.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := [name for name in names if names.count(name) > 1]:
            raise yaml.constructor.ConstructorError(
                problem=f"found the name {twice[0]} twice", problem_mark=node.start_mark
            )
        return super().construct_mapping(node, deep)


_KEPT = {"bool", "null", "merge"}
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.rpartition(":")[2] in _KEPT]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"^[-+]?(0|[1-9][0-9]*)$"), list("-+0123456789")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?([0-9]+\.[0-9]*|\.[0-9]+)([eE][-+][0-9]+)?$|^[-+]?\.(inf|Inf|INF)$|^\.(nan|NaN|NAN)$"),
    list("-+0123456789."),
)


def read_yaml(path: Path) -> dict[str, Any]:
    """Reads the mapping in a YAML file.

    Raises:
        UserError: If the file cannot be read or holds no mapping of names to values.
    """
    try:
        with open_regular(path) as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise UserError(f"{path}: found no readable file ({error.strerror}), expected YAML") from error
    if len(data) > _MOST_BYTES:
        raise UserError(f"{path}: found more than {_MOST_BYTES} bytes, expected settings; check the path")
    text = decode_text(data, path)
    try:
        values = yaml.load(text, _Loader)
    except RecursionError as error:
        raise UserError(f"{path}: found no valid YAML (too many brackets)") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a number of thousands of digits
        raise UserError(f"{path}: found no valid YAML ({' '.join(str(error).split())})") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: found {type(values).__name__}, expected a mapping of names to values")
    if foreign := [name for name in values if not isinstance(name, str)]:
        raise UserError(f"{path}: found the name {foreign[0]}, expected names of settings; correct it")
    return values
