"""Event files for TensorBoard, as TensorBoard's own reader finds them."""

import resource
import signal
import subprocess
import sys
from contextlib import contextmanager
from threading import Thread

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sysds_resnet.errors import UserError
from sysds_resnet.report.metrics import MetricsFile, read_lines
from sysds_resnet.report.tensorboard import TensorBoardFile

STEP = {
    **dict(epoch=1, loss=2.5, top1=0.25, top5=0.75, lr=0.5, grad_norm=3.5),
    **dict(images_per_s=40.0, data_wait_s=0.125),
}
EPOCH = {
    **dict(epoch=1, train_loss=1.5, val_loss=1.25, val_top1=0.5, val_top5=0.875),
    **dict(lr=0.5, images_per_s=39.0, data_wait_s=0.125),
}
KILLED = """
import os, signal, sys
from pathlib import Path
from sysds_resnet.report.tensorboard import TensorBoardFile
file = TensorBoardFile(Path(sys.argv[1]))
for step in range(1, 6):
    file.write("step", step=step, loss=float(step))
os.kill(os.getpid(), signal.SIGKILL)
"""


def read(folder):
    """All scalars of a run: by tag, (step, value) in the reader's order."""
    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


@contextmanager
def files_limited_to(size):
    """Files cannot grow beyond so many bytes: a write takes what has room, the next one fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_each_figure_has_its_tag_and_step(tmp_path):
    file = TensorBoardFile(tmp_path)
    file.write("step", step=7, skipped=False, **STEP)
    file.write("epoch", step=8, **EPOCH)
    file.write("resources", step=8, cpu_percent=187.5, rss_bytes=3 * 2**30, heap_bytes=2**30)
    assert read(tmp_path) == {
        "train/loss": [(7, 2.5)],
        "train/top1": [(7, 0.25)],
        "train/lr": [(7, 0.5)],
        "train/grad_norm": [(7, 3.5)],
        "train/images_per_s": [(7, 40.0)],
        "train/data_wait_s": [(7, 0.125)],
        "epoch/train_loss": [(8, 1.5)],
        "val/loss": [(8, 1.25)],
        "val/top1": [(8, 0.5)],
        "val/top5": [(8, 0.875)],
        "resources/cpu_percent": [(8, 187.5)],
        "resources/rss_bytes": [(8, 3 * 2**30)],
        "resources/heap_bytes": [(8, 2**30)],
    }


def test_what_is_not_known_is_left_out(tmp_path):
    file = TensorBoardFile(tmp_path)
    file.write("step", step=1, **STEP | {"loss": None})
    file.write("epoch", step=1, **EPOCH | {"val_loss": None, "val_top1": None, "val_top5": None})
    file.write("something else", step=1, loss=1.0)
    assert {tag for tag in read(tmp_path) if tag.startswith(("val", "train/loss"))} == set()
    assert read(tmp_path)["epoch/train_loss"] == [(1, 1.5)]


def test_a_loss_that_is_not_finite_is_kept_as_it_is(tmp_path):
    file = TensorBoardFile(tmp_path)
    file.write("step", step=1, loss=float("nan"))
    file.write("step", step=2, loss=float("inf"))
    np.testing.assert_array_equal(read(tmp_path)["train/loss"], [(1, np.nan), (2, np.inf)])


def test_the_times_of_the_record_are_kept(tmp_path):
    TensorBoardFile(tmp_path).write("step", step=1, time=1234567890.5, loss=1.0)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert events.Scalars("train/loss")[0].wall_time == 1234567890.5


def test_a_resumed_run_replaces_what_came_after_its_checkpoint(tmp_path):
    first = TensorBoardFile(tmp_path)
    for step in range(1, 7):
        first.write("step", step=step, loss=1.0)
        first.write("resources", step=step, cpu_percent=1.0)
    first.write("epoch", step=4, train_loss=1.0)
    second = TensorBoardFile(tmp_path, step=4)
    second.write("step", step=5, loss=2.0)
    expected = {
        "train/loss": [(1, 1.0), (2, 1.0), (3, 1.0), (4, 1.0), (5, 2.0)],
        "resources/cpu_percent": [(1, 1.0), (2, 1.0), (3, 1.0), (4, 1.0)],
        "epoch/train_loss": [(4, 1.0)],
    }
    assert read(tmp_path) == expected
    TensorBoardFile(tmp_path, step=0)
    assert read(tmp_path) == {tag: [] for tag in expected}


def test_a_killed_run_loses_no_scalar(tmp_path):
    process = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert read(tmp_path) == {"train/loss": [(step, float(step)) for step in range(1, 6)]}


def test_a_record_cut_short_does_not_hide_what_follows(tmp_path):
    first = TensorBoardFile(tmp_path)
    for step in (1, 2, 3):
        first.write("step", step=step, loss=1.0)
    (path,) = (tmp_path / "tensorboard").iterdir()
    path.write_bytes(path.read_bytes()[:-5])  # as a machine that lost power may leave it
    TensorBoardFile(tmp_path, step=1).write("step", step=2, loss=2.0)
    assert read(tmp_path) == {"train/loss": [(1, 1.0), (2, 2.0)]}


@pytest.mark.parametrize("extra", [0, 10])  # bytes of the record that the disk takes before it is full
def test_scalars_wait_for_a_disk_that_is_full(tmp_path, extra):
    notes = []
    file = TensorBoardFile(tmp_path, note=notes.append)
    file.write("step", step=1, loss=1.0)
    (path,) = (tmp_path / "tensorboard").iterdir()
    with files_limited_to(path.stat().st_size + extra):
        file.write("step", step=2, loss=2.0)
        file.write("step", step=3, loss=3.0)
        assert read(tmp_path)["train/loss"] == [(1, 1.0)]
    file.write("step", step=4, loss=4.0)
    assert read(tmp_path)["train/loss"] == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0)]
    assert len(notes) == 1
    assert str(path) in notes[0]


def test_threads_may_share_a_file(tmp_path):
    file = TensorBoardFile(tmp_path)

    def write(event, name):
        for step in range(200):
            file.write(event, step=step, **{name: float(step)})

    threads = [Thread(target=write, args=pair) for pair in (("step", "loss"), ("resources", "cpu_percent"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    line = [(step, float(step)) for step in range(200)]
    assert read(tmp_path) == {"train/loss": line, "resources/cpu_percent": line}


def test_it_holds_what_the_record_holds(tmp_path):
    files = MetricsFile(tmp_path), TensorBoardFile(tmp_path)
    for step in range(1, 4):
        for file in files:
            file.write("step", step=step, **STEP | {"loss": 1 / step})
    lines = read_lines(tmp_path / "metrics.jsonl")
    steps, losses = zip(*read(tmp_path)["train/loss"], strict=True)
    assert list(steps) == [line["step"] for line in lines]
    np.testing.assert_array_equal(np.float32(losses), np.float32([line["loss"] for line in lines]))


def test_without_the_package_the_error_names_the_command_that_installs_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard.compat.proto.event_pb2", None)
    with pytest.raises(UserError, match=r"-m pip install 'tensorboard>=") as caught:
        TensorBoardFile(tmp_path)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
