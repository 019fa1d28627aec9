"""All shell scripts are clean, as bash and ShellCheck see them."""

import subprocess
import sys
from pathlib import Path

import pytest
from command_line import ROOT

pytestmark = pytest.mark.long


def test_all_shell_scripts_are_clean():
    scripts = [*sorted((ROOT / "scripts").rglob("*.sh")), ROOT / "scripts" / "systemds"]
    assert len(scripts) > 10
    for script in scripts:
        assert subprocess.run(["bash", "-n", script]).returncode == 0
    checker = Path(sys.executable).parent / "shellcheck"
    options = ["--shell=bash", "--external-sources", "--source-path=SCRIPTDIR", "--format=gcc"]
    done = subprocess.run([checker, *options, *scripts], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == ""
