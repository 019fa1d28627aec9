"""Who may import whom: the rooms of the package, from the ground up (docs/design.md)."""

import ast
import functools
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "sysds_resnet"
GROUND = ("errors", "imagenet", "system", "settings", "classes")
MAY_IMPORT = {
    "errors": (),
    "imagenet": (),
    "system": ("errors",),
    "settings": ("errors", "system"),
    "classes": ("errors", "system"),
    "engine": GROUND,
    "images": GROUND,
    "report": GROUND,
    "network": (*GROUND, "engine"),
    "batches": (*GROUND, "images"),
    "preparing": (*GROUND, "engine", "images", "batches"),
    "scoring": (*GROUND, "engine", "images", "batches", "network"),
    "training": (*GROUND, "engine", "images", "batches", "network", "scoring", "report"),
}
"""The rooms, and those that each may import besides itself; all other files are doors."""
MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}


@functools.cache
def tree(module):
    return ast.parse(MODULES[module].read_text())


def imports(within):
    """The modules of the package that a tree of Python imports, by their full names."""
    for node in ast.walk(within):
        if isinstance(node, ast.ImportFrom) and node.level:
            yield "a relative import"
        elif isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "sysds_resnet":
            below = [f"{node.module}.{name.name}" for name in node.names]
            yield from ([name for name in below if name in MODULES] or [node.module])
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name.split(".")[0] == "sysds_resnet")


def room(module):
    return module.split(".")[1] if "." in module else ""


@pytest.mark.parametrize("module", MODULES)
def test_a_room_imports_only_what_it_may(module):
    own = room(module)
    if own in MAY_IMPORT:
        others = {room(found) for found in imports(tree(module))} - {own}
        assert others <= set(MAY_IMPORT[own])


@pytest.mark.parametrize("module", MODULES)
def test_nobody_imports_a_door(module):
    """The package itself hands on the class of one, and spark_command describes what others do."""
    if module != "sysds_resnet":
        found = {name for name in imports(tree(module)) if name != "sysds_resnet"}
        assert {room(name) for name in found} <= MAY_IMPORT.keys()


def test_no_import_runs_in_a_circle():
    graph = {name: set(imports(tree(name))) - {name} for name in MODULES}
    assert len(list(TopologicalSorter(graph).static_order())) == len(MODULES)  # or CycleError names one


@pytest.mark.parametrize("module", MODULES)
def test_the_package_is_imported_at_the_top_of_files(module):
    """A function imports only packages that not everybody has, or that take long."""
    for node in ast.walk(tree(module)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert not list(imports(node))


@pytest.mark.parametrize("module", [name for name, path in MODULES.items() if path.name == "__init__.py"])
def test_a_room_says_what_it_is_for(module):
    assert ast.get_docstring(tree(module))
