"""What scripts and documents import from the package is there."""

import importlib
import re

import pytest
from command_line import ROOT

IMPORT = re.compile(r"from (sysds_resnet[\w.]*) import (\w+(?:, \w+)*)")
NAME = re.compile(r"`(sysds_resnet(?:\.\w+)+)`")
FOUND = sorted(
    (str(path.relative_to(ROOT)), module, name)
    for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("scripts/**/*"))
    if path.is_file() and path.suffix != ".py"
    for module, names in IMPORT.findall(path.read_text())
    for name in names.split(", ")
)


@pytest.mark.parametrize(("file", "module", "name"), FOUND)
def test_what_is_imported_is_there(file, module, name):
    assert hasattr(importlib.import_module(module), name), file


@pytest.mark.parametrize("path", [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")], ids=lambda path: path.name)
def test_what_documents_name_is_there(path):
    for name in NAME.findall(path.read_text()):
        owner, _, last = name.rpartition(".")
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            assert hasattr(importlib.import_module(owner), last), name
