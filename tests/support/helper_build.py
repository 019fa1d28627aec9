"""scripts/build_helper.py as a module, with or without hatchling."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

SCRIPT = Path(__file__).parents[2] / "scripts" / "build_helper.py"
_INTERFACE = "hatchling.builders.hooks.plugin.interface"


def load_build_script():
    """The module; what it takes from hatchling is a stand-in, which only builds need."""
    interface = ModuleType(_INTERFACE)
    interface.BuildHookInterface = object
    before = {name: sys.modules.get(name) for name in _parents()}
    sys.modules.update({name: ModuleType(name) for name in _parents()} | {_INTERFACE: interface})
    try:
        spec = importlib.util.spec_from_file_location("build_helper", SCRIPT)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        for name, known in before.items():
            if known is None:
                del sys.modules[name]
            else:
                sys.modules[name] = known
    return module


def _parents():
    words = _INTERFACE.split(".")
    return [".".join(words[: i + 1]) for i in range(len(words))]
