"""Every DML file and function that something names is there: in DML itself, in Python, Java and documents."""

import re

import pytest
from command_line import ROOT

FUNCTION = re.compile(r"^(\w+) = function\(", re.MULTILINE)
SOURCE = re.compile(r'source\("([^"{}]+)"\) as (\w+)')
CALL = re.compile(r"\b([a-z]\w*)::(\w+)\(")
FULL = re.compile(r"\b(dml/[\w/]+\.dml)::(\w+)")
# in the project, that is not in SystemDS's jar, which has scripts/nn/
FILE = re.compile(
    r"(?<![\w./])((?:dml|scripts(?!/nn/)|sysds_resnet|tests|benchmarks)/[\w/-]+\.(?:dml|py|java|sh|cpp|h))\b"
)
PLACES = ("dml", "sysds_resnet", "tests", "benchmarks", "scripts", "docs")


def files(*endings):
    found = [path for place in PLACES for path in (ROOT / place).rglob("*")] + list(ROOT.glob("*.md"))
    return sorted(str(path.relative_to(ROOT)) for path in found if path.name.endswith(endings))


FUNCTIONS = {name: set(FUNCTION.findall((ROOT / name).read_text())) for name in files(".dml")}


@pytest.mark.parametrize("name", files(".dml"))
def test_functions_that_dml_calls_are_there(name):
    text = re.sub(r"/\*.*?\*/|#[^\n]*", "", (ROOT / name).read_text(), flags=re.DOTALL)
    sources = {alias: file for file, alias in SOURCE.findall(text)}
    assert sources.keys() == {alias for alias, _ in CALL.findall(text)}  # each is used, and none is missing
    for alias, function in CALL.findall(text):
        assert function in FUNCTIONS[sources[alias]], f"{alias}::{function}"


@pytest.mark.parametrize("name", [n for n in files(".py", ".md") if 'source("dml/' in (ROOT / n).read_text()])
def test_functions_that_programs_in_python_and_documents_call_are_there(name):
    text = (ROOT / name).read_text()
    sources = {}
    for file, alias in SOURCE.findall(text):
        sources.setdefault(alias, set()).add(file)
    for file in set().union(*sources.values()):
        assert not file.startswith("dml/") or file in {*FUNCTIONS, "dml/none.dml"}
    for alias, function in CALL.findall(text):
        known = [FUNCTIONS[file] for file in sources.get(alias, ()) if file in FUNCTIONS]
        assert not known or any(function in functions for functions in known), f"{alias}::{function}"


@pytest.mark.parametrize("name", files(".py", ".java", ".md", ".dml", ".sh", ".cpp", ".h"))
def test_files_and_functions_that_are_named_are_there(name):
    text = (ROOT / name).read_text()
    for file, function in FULL.findall(text):
        assert function in FUNCTIONS[file], f"{file}::{function}"
    if not name.startswith("tests/"):
        missing = {file for file in FILE.findall(text) if not (ROOT / file).exists()}
        assert not missing
