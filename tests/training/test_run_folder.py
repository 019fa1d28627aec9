"""The folder of a run: made by one process, held while it runs, refused with the cause where it cannot be."""

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from command_line import assert_one_line_error, run_here

from sysds_resnet.errors import UserError
from sysds_resnet.training import run_folder as folders
from sysds_resnet.training.run_folder import (
    check_settings,
    config_text,
    read_config,
    run_folder,
    update_config,
    write_config,
    write_texts,
)
from sysds_resnet.training.settings import TrainSettings

NOBODY = 2**22 + 1  # more than any process's number


def started(folder, **values):
    """A folder of a run that has begun, and ended."""
    with run_folder(TrainSettings(out=folder), pytest.fail) as made:
        assert made == folder
        write_texts({folder / "config.yaml": config_text(TrainSettings(**values))})
    return folder


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


def test_what_a_killed_start_leaves_is_no_foreign_file(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    for name in (".lock", "jvm.log", "hs_err_7.log", f".config.yaml.{NOBODY}.tmp"):
        (folder / name).touch()
    started(folder)


# Folders that cannot be


def long_name(folder):
    return folder / ("x" * 300)


def a_file(folder):
    (folder / "file").write_text("")
    return folder / "file"


def below_a_file(folder):
    return a_file(folder) / "run"


def a_dead_link(folder):
    (folder / "link").symlink_to(folder / "nothing")
    return folder / "link"


def foreign_files(folder):
    (folder / "thesis.tex").write_text("")
    return folder


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (long_name, "cannot be made (file name too long)"),
        (a_file, "found a file there"),
        (below_a_file, "cannot be made (a file is in its way)"),
        (a_dead_link, "found a file there"),
        (foreign_files, "found files there, expected a new or empty run folder"),
    ],
)
def test_a_folder_that_cannot_be_a_runs_is_an_error_with_its_cause(make, found, capfd, tmp_path):
    out = make(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    outcome = run_here(capfd, "train", "--dataset", "digits", "--out", out)
    assert_one_line_error(outcome, f"{out}: {found}", "--out")
    assert "--resume" not in outcome.err  # there is no run to continue
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT])
def test_a_disk_that_takes_no_folder_is_an_error_with_its_cause(code, capfd, monkeypatch, tmp_path):
    def refuse(path, *_args, **_kwargs):
        raise OSError(code, os.strerror(code), str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    outcome = run_here(capfd, "train", "--out", tmp_path / "run")
    assert_one_line_error(outcome, f"{tmp_path / 'run'}: cannot be made ({os.strerror(code).lower()})")


@pytest.mark.parametrize("flag", ["--out", "--resume", "--dataset", "--init-from"])
def test_an_empty_name_is_refused(flag, capfd):
    outcome = run_here(capfd, "train", flag, "")
    name = flag.strip("-").replace("-", "_")
    assert_one_line_error(outcome, f"{name}: found nothing, expected a value that is not empty")


def no_config(folder):
    return folder


def damaged(folder):
    (folder / "config.yaml").write_bytes(b"model: [resnet18\n\0")
    return folder


def empty_config(folder):
    (folder / "config.yaml").touch()
    return folder


def latin(folder):
    (folder / "config.yaml").write_bytes("dataset: fl\xfcgel".encode("latin-1"))
    return folder


def newer(folder):
    (folder / "config.yaml").write_text("model: resnet18\nquantum: true\n")
    return folder


def impossible(folder):
    (folder / "config.yaml").write_text("model: resnet18\nepochs: -3\n")
    return folder


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (long_name, ": cannot be read (file name too long)"),
        (a_file, ": found a file, expected the folder of a run"),
        (no_config, ": found no config.yaml, expected the folder of a run that has begun"),
        (damaged, "/config.yaml: found bytes that are no text, expected text in UTF-8"),
        (empty_config, "/config.yaml: found NoneType, expected a mapping"),
        (latin, "/config.yaml: found text that seems to be in ISO-8859-1, expected UTF-8"),
        (newer, "/config.yaml: found the setting quantum, which this version"),
        (impossible, "/config.yaml: epochs: found -3"),
    ],
)
def test_what_is_no_run_is_not_resumed(make, found, capfd, tmp_path):
    folder = make(tmp_path)
    assert_one_line_error(run_here(capfd, "train", "--resume", folder), f"{folder}{found}")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_settings_are_read_with_a_byte_order_mark_or_without(encoding, tmp_path):
    (tmp_path / "config.yaml").write_bytes("dataset: Flügel/Äpfel\n".encode(encoding))
    assert read_config(tmp_path) == {"dataset": "Flügel/Äpfel"}


def test_another_batch_size_is_named_and_not_what_it_does_to_the_micro_batch(capfd, tmp_path):
    folder = started(tmp_path / "run", batch_size=12, micro_batch=6)
    outcome = run_here(capfd, "train", "--resume", folder, "--batch-size", 9)
    assert_one_line_error(
        outcome, f"batch_size: found 9, expected 12 as in {folder / 'config.yaml'}; resume with"
    )


def test_settings_that_change_nothing_may_be_others(tmp_path):
    folder = started(tmp_path / "run", dataset="a", micro_batch=6)
    check_settings(TrainSettings(dataset="b", micro_batch=3, heap="1g", workers=1), folder)
    with pytest.raises(UserError, match=r"^seed: found 1, expected 42"):
        check_settings(TrainSettings(seed=1), folder)


# Changes that are written down


def test_changes_are_written_down_with_their_reasons(tmp_path):
    folder = started(tmp_path / "run", dataset="a", micro_batch=8)
    write_config(folder, TrainSettings(dataset="a", micro_batch=4), "micro_batch 4: heap\nfull")
    update_config(folder, TrainSettings(dataset="b", micro_batch=2, heap="1g"), 7)
    update_config(folder, TrainSettings(dataset="b", micro_batch=2, heap="2g"), 9)  # nothing to write down
    text = (folder / "config.yaml").read_text()
    assert text.splitlines()[:2] == [
        "# micro_batch 4: heap full",
        "# dataset b in place of a, micro_batch 2 in place of 4 from step 7 on, as asked for",
    ]
    assert yaml.safe_load(text) | {"dataset": "a", "micro_batch": 8} == yaml.safe_load(
        config_text(TrainSettings(dataset="a", micro_batch=8))
    )


def test_settings_that_the_disk_does_not_take_are_an_error_that_leaves_the_old(tmp_path, monkeypatch):
    folder = started(tmp_path / "run")
    before = (folder / "config.yaml").read_text()

    def full(path, *_args, **_kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(UserError, match=r"config.yaml: cannot be written \(no space left on device\)"):
        write_config(folder, TrainSettings(seed=3))
    assert (folder / "config.yaml").read_text() == before
