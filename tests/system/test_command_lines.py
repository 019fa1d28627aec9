"""Command lines that are printed: a shell that is given one finds the interpreter that has the package."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from sysds_resnet.system import command_lines
from sysds_resnet.system.command_lines import install_command, interpreter, own_command

PACKAGE = Path(command_lines.__file__).parents[1]


def make_environment(folder):
    """A virtual environment's interpreter, which is a link to another's."""
    folder.mkdir(parents=True)
    (folder / "python").symlink_to(sys.executable)
    return str(folder / "python")


@pytest.fixture
def elsewhere(monkeypatch, tmp_path):
    """A function that has another interpreter run this, and a PATH that does not have it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/nowhere")

    def run_by(executable):
        monkeypatch.setattr(sys, "executable", executable)

    return run_by


def test_an_interpreter_below_the_working_directory_is_relative(elsewhere, tmp_path):
    elsewhere(make_environment(tmp_path / ".venv" / "bin"))
    assert own_command("train", "--resume", "runs/a") == (
        ".venv/bin/python -m sysds_resnet.train --resume runs/a"
    )


def test_an_interpreter_elsewhere_is_absolute_and_quoted(elsewhere, tmp_path, monkeypatch):
    executable = make_environment(tmp_path / "a b" / "bin")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    elsewhere(executable)
    words = shlex.split(own_command("train", "--resume", "runs/my run"))
    assert words == [executable, "-m", "sysds_resnet.train", "--resume", "runs/my run"]


def test_who_called_the_script_is_told_of_the_script(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    script = tmp_path / "bin" / "sysds-resnet"
    script.parent.mkdir()
    script.touch(mode=0o755)
    monkeypatch.setattr(sys, "argv", [str(script), "train"])
    monkeypatch.setenv("PATH", "/nowhere")
    assert own_command("spark_command", "dml") == "bin/sysds-resnet spark-command dml"
    monkeypatch.setenv("PATH", str(script.parent))
    assert own_command("train", "--resume", "my run") == "sysds-resnet train --resume 'my run'"


def test_the_one_on_the_path_is_called_by_its_name(elsewhere, tmp_path, monkeypatch):
    executable = make_environment(tmp_path / "bin")
    elsewhere(executable)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert interpreter() == "python"


def test_another_environment_on_the_path_is_told_apart(elsewhere, tmp_path, monkeypatch):
    """Both are links to one program; only one has the package."""
    make_environment(tmp_path / "other")
    elsewhere(make_environment(tmp_path / "ours"))
    monkeypatch.setenv("PATH", str(tmp_path / "other"))
    assert interpreter() == "ours/python"


def test_a_shell_runs_what_is_printed():
    line = own_command("doctor", "--help")
    environment = {**os.environ, "PATH": "/usr/bin:/bin"} if "/" in interpreter() else os.environ
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.startswith("usage: ")


@pytest.mark.parametrize("extra", ["spark", "tensorboard", "torch"])
def test_extras_are_installed_by_the_names_of_their_packages(extra):
    words = shlex.split(install_command(extra))
    assert words[1:4] == ["-m", "pip", "install"]
    requirements = [Requirement(word) for word in words[4:]]
    names = {"spark": "pyspark", "tensorboard": "tensorboard", "torch": "torch"}
    assert all(requirement.specifier for requirement in requirements)
    assert names[extra] in [requirement.name for requirement in requirements]
    assert not any("sysds" in word or "extra" in word for word in words[4:])


def test_no_other_module_prints_a_command_with_a_python_of_its_own():
    """What looks like one outside of the modules' first lines, comments and --help."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if number > 3 and re.search(r"python -m ?(sysds_resnet|\"|$)", line) and path.stem not in ALLOWED:
                found.append(f"{path.name}:{number}: {line.strip()}")
    assert found == []


ALLOWED = {
    "command_lines": "the name of the program in --help",
}
