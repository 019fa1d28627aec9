"""The prepare command: sizes that it tells, runs that were stopped and go on, and folders that it refuses."""

import json
import os
import shutil
import signal
import subprocess
import sys
from types import SimpleNamespace

import psutil
import pytest
from command_line import assert_gone, assert_one_line_error, finish, run_here, start_python, wait_for
from damage import changes
from PIL import Image
from small_preparations import COUNTS, SIZE, contents, make_source

from sysds_resnet import prepare
from sysds_resnet.errors import UserError
from sysds_resnet.images import open_dataset
from sysds_resnet.preparing import shards
from sysds_resnet.system.folder_lock import FolderLock

SYNTHETIC = ["--dataset", "synthetic", "--image-size", "8", "--shard-images", "150"]
SYNTHETIC_BYTES = (256 + 64) * 8 * 8 * 3


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory):
    """A prepared data set that needs no reading processes; no test changes it."""
    folder = tmp_path_factory.mktemp("synthetic") / "data"
    assert prepare.main([*SYNTHETIC, "--out", str(folder)]) == 0
    return folder


# Sizes


def test_sizes_are_told_before_anything_is_written(tmp_path, capfd, monkeypatch):
    told = []
    write_whole = shards.write_whole

    def note(writers):
        told.append((capfd.readouterr().out, list(changes(tmp_path))))
        write_whole(writers)

    monkeypatch.setattr(shards, "write_whole", note)
    assert prepare.main([*SYNTHETIC, "--out", str(tmp_path)]) == 0
    assert told[0] == ("256 train, 64 val images of 8 x 8, 10 classes\nshards:   61.4kB\n", [])


@pytest.mark.parametrize(
    ("flags", "bytes_needed", "size"),
    [
        (SYNTHETIC, SYNTHETIC_BYTES, "8 x 8"),
        ([*SYNTHETIC, "--matrices"], 3 * SYNTHETIC_BYTES, "8 x 8"),
        (["--dataset", "synthetic"], 320 * 32 * 32 * 3, "32 x 32"),
        (["--dataset", "photos", "--splits", "val"], 120 * 256 * 256 * 3, "256 x 256"),
    ],
)
def test_too_small_a_disk_is_refused_before_writing(tmp_path, capfd, monkeypatch, flags, bytes_needed, size):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=bytes_needed - 1))
    outcome = run_here(capfd, "prepare", *flags, "--out", tmp_path / "a" / "b")
    assert_one_line_error(outcome, tmp_path / "a" / "b", " free, expected ", "make room")
    assert f"images of {size}" in outcome.out
    assert not list(tmp_path.iterdir())


def test_what_is_written_already_needs_no_room(synthetic, capfd, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
    outcome = run_here(capfd, "prepare", *SYNTHETIC, "--out", synthetic)
    assert (outcome.code, outcome.err) == (0, "")


# Runs that end early


STOPS_AFTER_THREE_SHARDS = """
import sys, time
from sysds_resnet import prepare
from sysds_resnet.preparing import shards
save = shards.save_manifest
def wait(path, manifest):
    save(path, manifest)
    while manifest.shards["train"] == [2, 2, 2]:
        time.sleep(0.1)
shards.save_manifest = wait
sys.exit(prepare.main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("sent", "code"),
    [(signal.SIGKILL, -signal.SIGKILL), pytest.param(signal.SIGINT, 130, marks=pytest.mark.long)],
)
def test_a_run_that_was_stopped_goes_on_and_ends_as_if_it_had_not(tmp_path, capfd, sent, code):
    source = make_source(tmp_path / "source")
    flags = ["--dataset", source, "--image-size", SIZE, "--shard-images", 2, "--workers", 1]
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert run_here(capfd, "prepare", *flags, "--out", whole).code == 0

    process = start_python("-c", STOPS_AFTER_THREE_SHARDS, *map(str, flags), "--out", str(out))
    progress = out / "progress.json"
    wait_for(
        process,
        lambda: progress.exists() and json.loads(progress.read_text())["shards"]["train"] == [2, 2, 2],
    )
    family = psutil.Process(process.pid).children(recursive=True)
    assert family
    process.send_signal(sent)
    outcome = finish(process)
    assert outcome.code == code
    assert sent == signal.SIGKILL or "interrupted\n" in outcome.err
    assert "Traceback" not in outcome.err
    for child in family:
        assert_gone(child)
    for split in COUNTS:
        with pytest.raises(UserError, match=r"run sysds_resnet\.prepare again as before, and it goes on$"):
            open_dataset(out, split)
    before = changes(out)
    outcome = run_here(capfd, "prepare", *flags[:-4], "--shard-images", 3, "--workers", 1, "--out", out)
    assert_one_line_error(outcome, f"{out}: found a data set with shard_images 2, expected 3")
    assert changes(out) == before

    assert run_here(capfd, "prepare", *flags, "--out", out).code == 0
    assert contents(out) == contents(whole)
    after = changes(out)
    for number in range(3):
        path = out / f"train-0000{number}-images.npy"
        assert after[path] == before[path], "written again"


KILLED = f"""
import itertools, os, signal
from sysds_resnet import prepare
for number in itertools.count():
    if os.fork() == 0:
        calls = itertools.count()
        for name in ("replace", "unlink"):
            def or_die(*args, call=getattr(os, name), **kwargs):
                if next(calls) == number:
                    os.kill(os.getpid(), signal.SIGKILL)
                return call(*args, **kwargs)
            setattr(os, name, or_die)
        os._exit(prepare.main([*{SYNTHETIC}, "--out", str(number)]))
    if os.wait()[1] != signal.SIGKILL:
        break
"""


@pytest.mark.long
def test_a_kill_before_any_file_gets_its_name_leaves_what_the_same_command_completes(tmp_path, capfd):
    subprocess.run([sys.executable, "-c", KILLED], cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
    *killed, whole = sorted(tmp_path.iterdir(), key=lambda path: int(path.name))
    assert len(killed) > 15
    expected = contents(whole)
    assert len(expected) == 8 and len(open_dataset(whole, "train")) == 256
    for folder in killed:
        if not (folder / "manifest.json").exists():
            for split in COUNTS:
                with pytest.raises(UserError):
                    open_dataset(folder, split)
        outcome = run_here(capfd, "prepare", *SYNTHETIC, "--out", folder)
        assert (outcome.code, outcome.err) == (0, ""), f"killed at call {folder.name}"
        assert contents(folder) == expected, f"killed at call {folder.name}"


def test_a_complete_data_set_stays_as_it_is(synthetic, capfd):
    before = changes(synthetic)
    outcome = run_here(capfd, "prepare", *SYNTHETIC, "--out", synthetic, "--workers", 1, "--prefetch", 0)
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.endswith(f"{synthetic}: 320 images; train with --dataset {synthetic}\n")
    assert changes(synthetic) == before


# Refusals


@pytest.mark.parametrize(
    ("flags", "found"),
    [
        (["synthetic", "--image-size", 16, "--shard-images", 150], "image_size [8, 8], expected [16, 16]"),
        (["synthetic", "--image-size", 8, "--shard-images", 50], "shard_images 150, expected 50"),
        (["synthetic", "--image-size", 8, "--shard-images", 150, "--splits", "val"], "images {'train': 256,"),
        (["digits", "--image-size", 8, "--shard-images", 150], "dataset synthetic, expected digits"),
    ],
)
def test_another_data_set_in_the_same_folder_is_refused(synthetic, capfd, flags, found):
    before = changes(synthetic)
    outcome = run_here(capfd, "prepare", "--dataset", *flags, "--out", synthetic)
    assert_one_line_error(outcome, f"{synthetic}: found a data set with {found}", "choose another --out")
    assert changes(synthetic) == before


@pytest.mark.parametrize("change", [("a.png 0", "a.png 1"), ("a.png", "c.png")])
def test_other_labels_and_other_files_in_the_same_folder_are_refused(tmp_path, capfd, change):
    for name in "abc":
        Image.new("RGB", (8, 8)).save(tmp_path / f"{name}.png")
    listed = tmp_path / "val_list.txt"
    listed.write_text("a.png 0\nb.png 1\nb.png 0\n")
    out = tmp_path / "out"
    flags = ["--dataset", tmp_path, "--splits", "val", "--image-size", 8, "--workers", 1, "--out", out]
    assert run_here(capfd, "prepare", *flags).code == 0
    before = changes(out)
    listed.write_text(listed.read_text().replace(*change))
    outcome = run_here(capfd, "prepare", *flags)
    assert_one_line_error(outcome, f"{out}: found a data set with val samples ", "prepare it as before")
    assert changes(out) == before


def test_a_folder_with_other_files_is_refused(tmp_path, capfd):
    (tmp_path / "notes.txt").write_text("mine")
    before = changes(tmp_path)
    for out, found in (
        (tmp_path, "found files there"),
        (tmp_path / "notes.txt", "cannot be made (file exists)"),
    ):
        outcome = run_here(capfd, "prepare", *SYNTHETIC, "--out", out)
        assert_one_line_error(outcome, f"{out}: {found}, expected a", "choose another --out")
    assert changes(tmp_path) == before


def test_two_processes_do_not_prepare_into_one_folder(tmp_path, capfd):
    out = tmp_path / "out"
    out.mkdir()
    with FolderLock(out, "prepare", pytest.fail):
        outcome = run_here(capfd, "prepare", "--dataset", "digits", "--out", out)
        assert_one_line_error(outcome, f"{out}: found prepare at work there, process {os.getpid()} on")
    outcome = run_here(capfd, "prepare", "--dataset", "digits", "--splits", "val", "--out", out)
    assert outcome.code == 0, outcome
    assert ".lock" not in os.listdir(out)


def test_a_folder_that_cannot_be_made_is_named_with_the_cause(tmp_path, capfd):
    (tmp_path / "file").touch()
    for out, cause in ((tmp_path / "file", "file exists"), (tmp_path / ("x" * 300), "file name too long")):
        outcome = run_here(capfd, "prepare", "--dataset", "digits", "--out", out)
        assert_one_line_error(outcome, f"{out}: cannot be made ({cause})")
