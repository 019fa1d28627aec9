"""Arguments of DML programs: those that a program does not have are refused, with the nearest right name."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import ROOT, assert_one_line_error, run_here, run_systemds
from py4j.protocol import Py4JJavaError

from sysds_resnet.engine.jvm.classes import compile_classes
from sysds_resnet.engine.jvm.process import LAUNCHER
from sysds_resnet.system.similar_names import did_you_mean

PROGRAMS = {name: str(ROOT / "dml" / f"{name}.dml") for name in ("train", "evaluate", "predict")}


@pytest.fixture(scope="module")
def check(engine):
    """Check the words of a command line as the launcher of programs does; gives what it refuses, or None."""
    gateway = engine._gateway
    _, make = compile_classes(gateway, LAUNCHER.parent, "ProgramFiles", "ProgramArguments")

    def check(program, *arguments, options=(), files=False):
        words = ["-f", str(program), *options, "-nvargs", *map(str, arguments)]
        array = gateway.new_array(gateway.jvm.String, len(words))
        for i, word in enumerate(words):
            array[i] = word
        try:
            program = make([array])
            if files:
                program.checkFiles()
        except Py4JJavaError as error:
            refused = error.java_exception.getCause() or error.java_exception
            assert refused.getClass().getSimpleName() == "DMLScriptException"
            return refused.getMessage()
        return None

    return check


@pytest.fixture
def own_program(tmp_path):
    """A program of a user's, which has another one by source()."""
    part, program = tmp_path / "part.dml", tmp_path / "own.dml"
    part.write_text("f = function(double x) return (double y) {\n  y = x + ifdef($inside, 3)\n}\n")
    program.write_text(
        f'source("{part}") as part\n'
        "rate = ifdef($rate, 0.5)  # not $commented\nbias = ifdef($bias, -1)\n"
        'name = ifdef($name, "a $quoted")\n'
        "print($plain + rate + bias + name + part::f(1))\n"
    )
    return program


@pytest.mark.parametrize(
    ("program", "wrong", "right"),
    [
        ("train", "epoch=1", "epochs"),
        ("train", "lr=0.1", "base_lr or end_lr"),
        ("train", "batch-size=4", "batch_size"),
        ("train", "x=X.csv", "X"),
        ("train", "labelsmoothing=0.1", "label_smoothing"),
        ("evaluate", "weigths=w", "weights"),
        ("evaluate", "y=Y.csv", "Y"),
        ("predict", "outformat=csv", "out_format"),
    ],
)
def test_a_misspelt_name_is_refused_with_the_nearest_right_one(check, program, wrong, right):
    found = check(PROGRAMS[program], "X=X.csv", "out=w", wrong)
    assert found == f"{wrong.split('=')[0]}: no such argument of {PROGRAMS[program]}; did you mean {right}?"


def test_all_wrong_names_are_named_at_once(check):
    found = check(PROGRAMS["train"], "momentun=0.9", "seeed=1", "qqq=1")
    assert "did you mean momentum?; qqq: no such argument" in found
    assert "it takes C, H, W, X" in found and found.endswith("did you mean seed?")


def test_every_argument_that_a_program_describes_is_taken(check):
    for path in PROGRAMS.values():
        text = Path(path).read_text()
        defaults = dict(re.findall(r'^\w+ = ifdef\(\$(\w+), "?([^")]*)"?\)$', text, re.M))
        described = re.findall(r"^ \*  - ([\w, ]+)[:[]", text, re.M)
        assert len(defaults) > 8
        assert {name for names in described for name in names.strip().split(", ")} <= defaults.keys()
        assert check(path, *(f"{name}={default or 'file'}" for name, default in defaults.items())) is None


@pytest.mark.parametrize(
    ("argument", "found"),
    [
        ("epochs=ten", "epochs: found ten, expected a number; the default is 8"),
        ("epochs=", "epochs: found nothing, expected a value"),
        ("epochs", "arguments: found epochs after -nvargs, expected name=value"),
        ("base_lr=1e-3x", "base_lr: found 1e-3x, expected a number"),
        ("epochs=TRUE", "epochs: found TRUE, expected a number"),
        ("trust_clip=yes", "trust_clip: found yes, expected TRUE or FALSE"),
        ("trust_clip=1", "trust_clip: found 1, expected TRUE or FALSE"),
    ],
)
def test_values_of_another_kind_than_the_default_are_refused(check, argument, found):
    assert check(PROGRAMS["train"], argument).startswith(found)


@pytest.mark.parametrize(
    "argument", ["base_lr=.5", "base_lr=1E+2", "end_lr=-1", "epochs=8.0", "trust_clip=true"]
)
def test_values_of_the_default_s_kind_are_left_to_the_program(check, argument):
    assert check(PROGRAMS["train"], argument) is None


def test_a_name_given_twice_is_refused(check):
    assert check(PROGRAMS["train"], "epochs=1", "epochs=2").startswith("epochs: found it twice")


def test_a_user_s_program_is_checked_with_what_it_sources(check, own_program):
    assert check(own_program, "rate=1", "bias=2.5", "inside=4", "plain=5", "name=6") is None
    for unknown in ("commented", "quoted", "insid"):
        assert f"{unknown}: no such argument of {own_program}" in check(
            own_program, f"{unknown}=1", "plain=5"
        )
    assert (
        check(own_program, "bias=low", "plain=5") == "bias: found low, expected a number; the default is -1"
    )


def test_nothing_is_refused_where_not_all_of_a_program_is_known(check, own_program):
    (own_program.parent / "part.dml").unlink()
    assert check(own_program, "anything=1", "plain=5") is None


def test_gpu_is_no_argument_of_a_user_s_program_but_of_the_launcher_s(check, own_program):
    assert check(own_program, "gpu=TRUE", "plain=5", options=["-gpu"]) is None
    assert "gpu: no such argument" in check(own_program, "gpu=TRUE", "plain=5")


def test_the_command_line_ends_with_one_line(tmp_path):
    outcome = run_systemds(PROGRAMS["train"], cwd=tmp_path, epoch=1, lr=0.1, X="X.csv", Y="Y.csv", out="w")
    assert_one_line_error(outcome, "epoch: no such argument", "did you mean epochs?", "did you mean base_lr")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("1,2,3\n4,5,6,7\n", "found 4 values in line 2, expected 3 as in the first"),
        ("1,2,3\n\n4,5", "found 2 values in line 3, expected 3 as in the first"),
        ("1,2,3\n4,5,6", None),
        ("1,2,3\r\n4,5,6\r\n\r\n", None),
        ("1\n2\n", None),
        ("", None),
    ],
)
def test_lines_of_a_csv_file_have_as_many_values(check, tmp_path, content, found):
    """The engine takes the first line's number of values, and leaves out more of them in others."""
    path = tmp_path / "X.csv"
    path.write_bytes(content.encode())
    refused = check(PROGRAMS["evaluate"], f"X={path}", "format=csv", files=True)
    assert refused is None if found is None else refused.startswith(f"{path}: {found}")
    assert check(PROGRAMS["evaluate"], f"X={path}", files=True) is None  # what its .mtd file says


@pytest.mark.parametrize(
    ("program", "argument"), [("train", "out"), ("train", "history"), ("evaluate", "out"), ("predict", "out")]
)
def test_results_that_cannot_be_written_are_refused_before_anything_is_computed(
    check, tmp_path, program, argument
):
    (tmp_path / "file").touch()
    for path in (tmp_path / "new", tmp_path / "new" / "deep", "hdfs://elsewhere/w"):
        assert check(PROGRAMS[program], f"{argument}={path}", files=True) is None
    refused = check(PROGRAMS[program], f"{argument}={tmp_path}/file/new", files=True)
    assert refused.startswith(f"{argument}: found that nothing can be written to {tmp_path}/file for")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


def test_weights_are_not_written_in_the_place_of_a_file(check, tmp_path):
    (tmp_path / "file").touch()
    refused = check(PROGRAMS["train"], f"out={tmp_path}/file", files=True)
    assert refused.startswith(f"out: found a file at {tmp_path}/file, expected a new folder")
    assert check(PROGRAMS["evaluate"], f"out={tmp_path}/file", files=True) is None


def test_programs_run_from_an_installed_package(tmp_path):
    """As a wheel has it: dml/ in the package, and no scripts/."""
    package = tmp_path / "site" / "sysds_resnet"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "sysds_resnet", package, ignore=ignored)
    shutil.copytree(ROOT / "dml", package / "dml")
    done = subprocess.run(
        [sys.executable, "-m", "sysds_resnet.systemds", "dml/train.dml", "-nvargs", "epoch=1"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site"), "SYSTEMDS_STANDALONE_OPTS": "-Xmx512m"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert f"error: epoch: no such argument of {package}/dml/train.dml" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("first", ["-h", "--help"])
def test_the_command_line_explains_itself(capfd, first):
    outcome = run_here(capfd, "systemds", first)
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.startswith("usage: python -m sysds_resnet.systemds ")


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ([], "found no program, expected one"),
        (["-f"], "found no program, expected one"),
        (["none.dml"], "none.dml: found no such file, expected a DML program"),
    ],
)
def test_a_missing_program_is_named(capfd, arguments, found):
    assert_one_line_error(run_here(capfd, "systemds", *arguments), found)


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["epoch=1"], ["arguments: found epoch, expected arguments of", "did you mean epochs?"]),
        (["depth=18", "lr=0.1"], ["arguments: found lr", "did you mean base_lr or end_lr?"]),
        (["epochs=1", "epochs=2"], ["arguments epochs=1 epochs=2, expected each name once"]),
        (["epochs=ten"], ["epochs: found ten, expected a valid integer"]),
        (["label_smoothing=1.5"], ["label_smoothing: found 1.5, expected less than 1"]),
    ],
)
def test_lines_for_spark_submit_are_not_printed_with_wrong_arguments(capfd, tmp_path, arguments, found):
    options = ["--master", "local[2]", "--data", tmp_path, "--blocks", 10, "--out", tmp_path / "w"]
    outcome = run_here(capfd, "spark_command", "dml", *options, "--arguments", *arguments)
    assert_one_line_error(outcome, *found)


def test_similar_names_are_few_or_none():
    known = ["epochs", "ema_every", "base_lr", "end_lr", "batch_size", "momentum"]
    assert did_you_mean("epoch", known) == "; did you mean epochs?"
    assert did_you_mean("lr", known) == "; did you mean base_lr or end_lr?"
    assert did_you_mean("batch-size", known) == "; did you mean batch_size?"
    assert did_you_mean("xyz", known) == did_you_mean("epoch", []) == ""
