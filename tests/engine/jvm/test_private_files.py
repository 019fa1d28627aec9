"""Where the engine's own files go, and users without a name or a home."""

import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest

from sysds_resnet.engine import opening
from sysds_resnet.engine.jvm.classes import hidden
from sysds_resnet.engine.spark import settings_file
from sysds_resnet.errors import UserError
from sysds_resnet.images import open_dataset
from sysds_resnet.images.sources.inputs import find_inputs
from sysds_resnet.system import files, machine, urls

NO_NAME = 54321  # a user whom /etc/passwd does not know


def test_the_engine_puts_its_files_into_its_private_folder(engine):
    """By default they are in /tmp/systemds, which users share, and in the working directory."""
    for connection in engine._programs.connections.values():
        config = hidden(connection, "_dmlconf")
        for name in ("sysds.localtmpdir", "sysds.scratch"):
            assert Path(config.getTextValue(name)).parent == engine._owned.folder


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None, reason="only root can become a user without a name"
)
def test_a_user_without_a_name_or_a_home_computes_reads_and_writes(tmp_path):
    tmp_path.chmod(0o777)
    program = """
        import os, sys, pathlib, numpy
        from sysds_resnet.engine import Engine
        assert os.getuid() == 54321 and os.path.expanduser("~") == "~"
        path = pathlib.Path(sys.argv[1])
        with Engine(heap=2**29, blas="none", fused=False) as engine:
            engine.matrices.write(path, numpy.ones((3, 4)))
            print(engine.matrices.read(path).sum())
    """
    # it may look at what belongs to root, so that it finds this package wherever it is, but not write there
    may_look = "+dac_read_search"
    command = ["setpriv", f"--reuid={NO_NAME}", f"--regid={NO_NAME}", "--clear-groups"]
    command += [f"--inh-caps={may_look}", f"--ambient-caps={may_look}", sys.executable, "-c"]
    done = subprocess.run(
        [*command, textwrap.dedent(program), tmp_path / "matrix"],
        capture_output=True,
        text=True,
        check=False,
        env={name: value for name, value in os.environ.items() if name != "HOME"},
        cwd=tmp_path,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("12.0\n", "", 0)
    assert {path.name for path in tmp_path.iterdir()} == {
        "matrix",
        "matrix.mtd",
        ".matrix.crc",
        ".matrix.mtd.crc",
    }


def test_a_user_without_a_name_gets_one_for_files(engine, monkeypatch):
    def unknown(number):
        raise KeyError(f"getpwuid(): uid not found: {number}")

    users = engine._jvm.org.apache.hadoop.security.UserGroupInformation
    before = users.getLoginUser()
    monkeypatch.setattr(machine.pwd, "getpwuid", unknown)
    try:
        opening.name_user(engine._jvm)
        assert users.getCurrentUser().getShortUserName() == f"uid{os.getuid()}"
    finally:
        users.setLoginUser(before)


@pytest.fixture
def open_folder():
    """A folder for everybody; those of pytest lie in one that only its user may enter."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        yield Path(folder)


@pytest.mark.long
@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None, reason="only root can become a user without a name"
)
def test_a_user_without_a_name_runs_programs_of_systemds(open_folder):
    (open_folder / "ones.dml").write_text('X = matrix(1, rows=2, cols=2)\nwrite(X, $out, format="csv")')
    command = ["setpriv", f"--reuid={NO_NAME}", f"--regid={NO_NAME}", "--clear-groups"]
    command += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search", sys.executable]
    command += ["-m", "sysds_resnet.systemds", "ones.dml", "-nvargs", "out=ones"]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"HOME": str(open_folder), "SYSTEMDS_STANDALONE_OPTS": "-Xmx512m"},
        cwd=open_folder,
    )
    assert done.returncode == 0, done
    assert (open_folder / "ones").read_text() == "1.0,1.0\n1.0,1.0\n"


def no_home(_):
    raise RuntimeError("could not determine the home directory")


@pytest.mark.parametrize("user_cache_path", [no_home, lambda name: Path("~/.cache") / name])
def test_without_a_home_files_that_are_kept_are_a_one_line_error(monkeypatch, tmp_path, user_cache_path):
    """They would go into a folder called ~ in the working directory."""
    monkeypatch.setattr(files, "user_cache_path", user_cache_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"^cache folder: found no home of this user, .*; set HOME or XDG"):
        settings_file.cache_folder()
    assert list(tmp_path.iterdir()) == []


def test_a_home_that_cannot_be_written_to_is_a_one_line_error(monkeypatch, tmp_path):
    (tmp_path / "home").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    with pytest.raises(UserError, match=r"^cache folder .*: found that it cannot be made .*; set XDG"):
        settings_file.cache_folder()


@pytest.mark.parametrize(
    "opened",
    [lambda path: open_dataset(path, "train"), lambda path: find_inputs([path]), urls.absolute],
)
@pytest.mark.parametrize("path", ["~nobody-of-this-name/images", "~nobody-of-this-name"])
def test_a_home_of_nobody_is_a_one_line_error(opened, path):
    with pytest.raises(UserError, match=r"^~nobody-of-this-name.*: found no home for ~nobody-of-this-name,"):
        opened(path)
