"""The command sysds-resnet: its list of commands, and how it runs them and completes them."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from command_line import assert_one_line_error, finish, run_here, start_python

from sysds_resnet.__main__ import COMMANDS
from sysds_resnet.settings.completion import SHELLS

PACKAGE = Path(import_module("sysds_resnet").__file__).parent
SCRIPT = (
    "import sys; sys.argv[0] = '/bin/sysds-resnet'; from sysds_resnet.__main__ import main; sys.exit(main())"
)


def test_every_door_is_a_command(capfd):
    doors = {path.stem for path in PACKAGE.glob("*.py") if "__main__" in path.read_text()} - {
        "__main__",
        "spark_program",
    }
    assert {name.replace("-", "_") for name in COMMANDS} == doors
    for words in (["--help"], ["help"], ["completion", "--help"]):
        outcome = run_here(capfd, "__main__", *words)
        assert outcome.code == 0 and all(f"  {name} " in outcome.out for name in [*COMMANDS, "completion"])


def test_a_command_is_called_by_the_name_in_its_help():
    outcome = finish(start_python("-c", SCRIPT, "convert", "--help"))
    assert outcome.code == 0 and outcome.out.startswith("usage: sysds-resnet convert SRC DST [options]")


def test_a_command_ends_with_its_exit_code(capfd):
    assert_one_line_error(run_here(capfd, "__main__", "train", "--epochs", "0"), "epochs: found 0")


def test_what_is_no_command_is_refused(capfd):
    assert_one_line_error(run_here(capfd, "__main__", "trian"), "trian: found no such", "did you mean train?")
    nothing = run_here(capfd, "__main__")
    assert (nothing.code, nothing.out) == (2, "") and nothing.err.startswith("usage: sysds-resnet COMMAND")
    assert_one_line_error(run_here(capfd, "__main__", "completion", "fish"), "expected bash or zsh")


def test_the_version_is_that_of_the_package(capfd):
    name, number = run_here(capfd, "__main__", "--version").out.split()
    assert name == "sysds-resnet" and number.count(".") == 2


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    """A function that has bash complete the last of some words."""
    script = tmp_path_factory.mktemp("completion") / "sysds-resnet.sh"
    script.write_text(finish(start_python("-m", "sysds_resnet", "completion", "bash")).out)

    def run(*words, cwd=None):
        program = """source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"
            COMP_POINT=${#COMP_LINE}; _shtab_sysds_resnet; printf "%s\\n" "${COMPREPLY[@]}" """
        done = subprocess.run(
            ["bash", "-c", program, "bash", script, "sysds-resnet", *words],
            capture_output=True, text=True, check=True, cwd=cwd,
        )  # fmt: skip
        return set(done.stdout.split())

    return run


def test_bash_completes_commands_flags_and_values(complete, tmp_path):
    (tmp_path / "weights.pth").touch()
    assert complete("pre") == {"predict", "prepare"}
    assert complete("train", "--base") == {"--base-lr", "--base-batch"}
    assert complete("train", "--optimizer", "") >= {"lars", "sgd", "nesterov"}
    assert complete("train", "--init-from", "wei", cwd=tmp_path) == {"weights.pth"}


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_can_read_its_script(shell):
    """zsh is on few machines; what can be checked of its script everywhere is that it has the flags."""
    text = finish(start_python("-m", "sysds_resnet", "completion", shell)).out
    assert "--label-smoothing" in text and "spark-command" in text and sys.prefix not in text
