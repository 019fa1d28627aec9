"""The folder of a run: made by one process, held while it runs, and rid of what killed processes left."""

import json
import os
import subprocess
import sys
import time

import pytest
from training_runs import started

from sysds_resnet.errors import UserError
from sysds_resnet.training import run_folder as folders
from sysds_resnet.training.run_folder import run_folder
from sysds_resnet.training.settings import TrainSettings


def names(folder):
    return sorted(path.name for path in folder.iterdir())


NOBODY = 2**22 + 1  # more than any process's number


# One process at a time


RACER = """
import sys, time
from pathlib import Path
from sysds_resnet.errors import UserError
from sysds_resnet.training.run_folder import run_folder, write_texts
from sysds_resnet.training.settings import TrainSettings
print("ready", flush=True)
sys.stdin.readline()
try:
    with run_folder(TrainSettings(out=Path(sys.argv[1])), print) as folder:
        write_texts({folder / "config.yaml": "model: resnet18"})
        print("won", flush=True)
        sys.stdin.readline()
except UserError as error:
    print(f"lost: {error}", flush=True)
"""


@pytest.mark.long
def test_of_processes_that_begin_in_one_new_folder_at_once_one_wins(tmp_path):
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, str(tmp_path / "a" / "run")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    assert [racer.stdout.readline() for racer in racers] == 4 * ["ready\n"]
    for racer in racers:
        racer.stdin.write("\n")
        racer.stdin.flush()
    lines = sorted(racer.stdout.readline() for racer in racers)
    for racer in racers:
        racer.communicate("\n")
    assert lines[-1] == "won\n"
    for line in lines[:-1]:
        assert line.startswith(f"lost: {tmp_path / 'a' / 'run'}: found a run at work there, "), lines


def test_a_run_that_is_at_work_is_neither_resumed_nor_begun_again(tmp_path):
    folder = started(tmp_path / "run")
    with run_folder(TrainSettings(resume=folder), pytest.fail):
        for how in ({"resume": folder}, {"out": folder}):
            with (
                pytest.raises(UserError, match=f"found a run at work there, process {os.getpid()} on"),
                run_folder(TrainSettings(**how), pytest.fail),
            ):
                pass
    with run_folder(TrainSettings(resume=folder), pytest.fail):
        pass
    assert [path.name for path in folder.iterdir()] == ["config.yaml"]


def test_runs_that_begin_in_one_second_get_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(folders, "datetime", FixedTime)
    settings = TrainSettings(dataset="digits", model="resnet18")
    with (
        run_folder(settings, pytest.fail) as first,
        run_folder(settings, pytest.fail) as second,
        run_folder(settings, pytest.fail) as third,
    ):
        assert [path.name for path in (first, second, third)] == [
            "digits-resnet18-NOW",
            "digits-resnet18-NOW-2",
            "digits-resnet18-NOW-3",
        ]
    assert not list((tmp_path / "runs").iterdir())


class FixedTime:
    @staticmethod
    def now():
        return FixedTime()

    def strftime(self, _):
        return "NOW"


# What killed processes leave


def test_what_killed_processes_left_unfinished_is_removed_and_nothing_else(tmp_path):
    folder = started(tmp_path / "run")
    alive = os.getppid()
    gone = [".tmpAb12Cd", f".weights.safetensors.{NOBODY}.tmp", f".config.yaml.{os.getpid()}.tmp"]
    kept = [f".curves.html.{alive}.tmp", "notes.tmp", ".tmp", ".tmpAb12Cde", ".tmp-notes", "tmpAb12Cd"]
    checkpoints = folder / "checkpoints"
    checkpoints.mkdir()
    for name in (*gone, *kept):
        (folder / name).touch()
    for name in (".tmpXXXXX1", f".step-00000001.safetensors.{alive}.tmp", "step-00000001.safetensors"):
        (checkpoints / name).touch()
    with run_folder(TrainSettings(resume=folder), pytest.fail):
        pass
    assert {path.name for path in folder.iterdir()} == {*kept, "config.yaml", "checkpoints"}
    assert [path.name for path in checkpoints.iterdir()] == ["step-00000001.safetensors"]


def test_the_temporary_names_are_those_of_safetensors(tmp_path):
    """A process that is killed while it writes; the file is large enough for that."""
    program = (
        "import sys, numpy as np\nfrom safetensors.numpy import save_file\nprint(flush=True)\n"
        "while True: save_file({'a': np.zeros(2**25)}, sys.argv[1])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "w.safetensors")], stdout=subprocess.PIPE
    )
    process.stdout.readline()
    deadline = time.monotonic() + 60
    while not (left := [p for p in tmp_path.iterdir() if p.name != "w.safetensors"]):
        assert time.monotonic() < deadline and process.poll() is None
    process.kill()
    process.communicate()
    left = [path for path in tmp_path.iterdir() if path.name != "w.safetensors"] or left
    assert all(folders.is_temporary(path) for path in left)


def test_a_run_that_fails_before_it_has_begun_leaves_no_folder(tmp_path):
    for out in (tmp_path / "run", tmp_path / "empty"):
        if out.name == "empty":
            out.mkdir()
        with pytest.raises(UserError, match="no data"), run_folder(TrainSettings(out=out), pytest.fail):
            (out / "jvm.log").touch()
            raise UserError("no data")
        assert not out.exists()


@pytest.mark.parametrize(
    ("event", "checkpoint", "begins"),
    [("resources", False, True), ("step", False, False), ("resources", True, False)],
)
def test_a_run_without_a_step_does_not_hold_its_folder(tmp_path, event, checkpoint, begins):
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    for name in ("config.yaml", "classes.txt", "jvm.log"):
        (folder / name).touch()
    (folder / "metrics.jsonl").write_text(json.dumps({"event": event, "step": 0}) + "\n")
    if checkpoint:
        (folder / "checkpoints" / "step-00000001.safetensors").touch()
    before = names(folder)
    if begins:
        with run_folder(TrainSettings(out=folder), pytest.fail):
            assert names(folder) == [".lock", "jvm.log"]
    else:
        with (
            pytest.raises(UserError, match="found files there"),
            run_folder(TrainSettings(out=folder), pytest.fail),
        ):
            pass
        assert names(folder) == before


def test_a_list_of_classes_alone_is_a_foreign_file(tmp_path):
    (tmp_path / "classes.txt").touch()
    with (
        pytest.raises(UserError, match="found files there"),
        run_folder(TrainSettings(out=tmp_path), pytest.fail),
    ):
        pass
    assert names(tmp_path) == ["classes.txt"]


def test_what_a_killed_start_leaves_is_no_foreign_file(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    for name in (".lock", "jvm.log", "hs_err_7.log", f".config.yaml.{NOBODY}.tmp"):
        (folder / name).touch()
    started(folder)
