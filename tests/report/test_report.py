"""What only reports never ends a run: each reporter fails in each way, is noted once, and recovers."""

import errno
import json
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from disk_faults import fail, faults
from run_events import epoch_event, step_event

from sysds_resnet.batches.bad_images import BadImages
from sysds_resnet.batches.settings import ReadingSettings
from sysds_resnet.errors import one_line
from sysds_resnet.images import ArrayDataset
from sysds_resnet.report import pictures
from sysds_resnet.report import run_report as report
from sysds_resnet.report.display import Display
from sysds_resnet.report.metrics import MetricsFile, read_lines
from sysds_resnet.report.run_report import RunReport
from sysds_resnet.training.profiling import StepProfiler
from sysds_resnet.training.progress import Progress

CODES = [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EACCES, errno.ESTALE]


class Run:
    """A report of a run that is told of steps and epochs, and what it has printed."""

    def __init__(self, folder, **settings):
        self.folder, self.step, self.epoch = folder, 0, 0
        self.engine = SimpleNamespace(heap_used=lambda: 2**30)
        self.progress, self.settings = Progress(), settings

    @cached_property
    def report(self):
        """Made within the test, whose standard output it writes to."""
        return RunReport(
            self.folder,
            "a run",
            epochs=9,
            total_steps=18,
            done=lambda: (self.progress.step, self.progress.step_in_epoch),
            heap_used=lambda: self.engine.heap_used(),
            **self.settings,
        )

    def go_on(self):
        """Two steps and the epoch that they end."""
        for _ in range(2):
            self.step += 1
            self.report.add(step_event(self.step))
        self.epoch += 1
        self.report.add(epoch_event(self.epoch))

    def lines(self):
        return [(line["event"], line["step"]) for line in read_lines(self.folder / "metrics.jsonl")]


ALL = [
    (event, step)
    for step in (2, 4, 6)
    for event, step in (("step", step - 1), ("step", step), ("epoch", step))
]


@pytest.fixture(autouse=True)
def quick_pictures(monkeypatch):
    """Files in the place of pictures, whose drawing takes long; the record is read for them all the same."""
    monkeypatch.setattr(pictures, "write_png", lambda runs, title, axis, path: path.write_bytes(b"picture"))


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path, tensorboard=True)


@pytest.mark.parametrize("function", ["open", "write", "truncate", "close", "fsync", "replace"])
def test_a_disk_that_fails_for_a_while_ends_nothing_and_loses_no_line(run, monkeypatch, capfd, function):
    """From before the first line on: no file of the run is there when its curves are to be drawn."""
    with monkeypatch.context() as patch:
        faults(patch, function, errno.ENOSPC)
        run.go_on()
        run.go_on()
    noted = capfd.readouterr().out
    assert noted.lower().count("no space left on device") in (1, 2, 3), noted  # once by each that failed
    run.go_on()
    assert run.lines() == ALL
    assert (run.folder / "curves.png").stat().st_size > 0
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run.folder / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [1, 2, 3, 4, 5, 6]
    assert "not written" not in capfd.readouterr().out


@pytest.mark.parametrize("code", CODES)
def test_each_kind_of_failure_is_outlived(tmp_path, monkeypatch, code):
    run = Run(tmp_path, tensorboard=True)
    with run.report:
        with monkeypatch.context() as patch:
            faults(patch, "open", code)
            run.go_on()
        run.go_on()
    assert run.lines() == ALL[:6]


@pytest.mark.parametrize(
    "name", ["plot_curves", "MetricsFile.write", "TensorBoardFile.write", "Display.step", "Display.epoch"]
)
@pytest.mark.parametrize("error", [ValueError("of a\nlibrary"), MemoryError(), RuntimeError("dead")])
def test_an_error_of_a_reporter_is_one_note(run, monkeypatch, capfd, name, error):
    def failing(*_args, **_kwargs):
        raise error

    owner, _, method = name.rpartition(".")
    with monkeypatch.context() as patch:
        patch.setattr(getattr(report, owner) if owner else report, method, failing)
        run.go_on()
        run.go_on()
    noted = capfd.readouterr().out
    assert noted.count(f" not written: {one_line(error)}; the run goes on\n") == 1, noted
    run.go_on()


def test_a_jvm_that_does_not_tell_its_heap_ends_no_report(run):
    run.engine.heap_used = fail(errno.EIO)
    run.go_on()
    assert run.lines() == ALL[:3]


def test_a_display_that_cannot_start_and_notes_that_fail_end_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(Display, "__enter__", fail(errno.EIO))
    monkeypatch.setattr(report, "ResourceSampler", fail(errno.EACCES))
    monkeypatch.setattr(Display, "note", fail(errno.EPIPE))
    run = Run(tmp_path)
    with run.report:
        run.go_on()
    assert run.lines() == ALL[:3]


def test_a_record_that_cannot_be_read_at_a_resume_is_read_later(tmp_path, monkeypatch):
    for step in range(1, 5):
        MetricsFile(tmp_path, step=step).write("step", step=step)
    notes = []
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", fail(errno.EIO))
        record = MetricsFile(tmp_path, step=2, note=notes.append)
        record.write("step", step=3, again=True)
        assert len(notes) == 1
    record.write("step", step=4, again=True)
    lines = read_lines(tmp_path / "metrics.jsonl")
    assert [(line["step"], line.get("again", False)) for line in lines] == [
        (1, False),
        (2, False),
        (3, True),
        (4, True),
    ]


# Damaged lines


@pytest.mark.parametrize(
    "damage", [b"\0\0\0\xff", b'{"event": "st', b"[1]", b'"text"', b'{"step": 1}', b"17"]
)
def test_a_damaged_line_takes_no_other_with_it(tmp_path, damage):
    record = MetricsFile(tmp_path)
    for step in range(1, 6):
        record.write("step", step=step)
    path, notes = tmp_path / "metrics.jsonl", []
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], damage + b"\n", *lines[2:]]))
    assert [line["step"] for line in read_lines(path)] == [1, 3, 4, 5]
    MetricsFile(tmp_path, step=4, note=notes.append).write("step", step=5, again=True)
    assert [line["step"] for line in read_lines(path)] == [1, 3, 4, 5]
    assert notes == [f"{path}: 1 damaged line dropped"]
    assert path.read_bytes().startswith(lines[0] + lines[2] + lines[3])  # as they were
    for line in path.read_text().splitlines():
        json.loads(line)


def test_a_whole_last_line_without_its_end_stays_a_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"event": "step", "step": 1}')
    MetricsFile(tmp_path, step=1, note=pytest.fail).write("step", step=2)
    assert [line["step"] for line in read_lines(path)] == [1, 2]


# bad_images.csv and profiles


def test_images_that_cannot_be_read_are_listed_once_the_disk_has_room(tmp_path, monkeypatch, capfd):
    data = ArrayDataset(
        np.zeros((9, 4, 4, 3), np.uint8), np.zeros(9, int), ["a"], mean=np.zeros(3), std=np.ones(3)
    )
    bad = BadImages(ReadingSettings(on_error="skip", max_bad=1), tmp_path)
    bad(data, 0, "first")
    with monkeypatch.context() as patch:
        faults(patch, "open", errno.ENOSPC)
        bad(data, 1, "second \udcff")
        bad(data, 2, "third")
    assert capfd.readouterr().err.count("bad_images.csv: not written (no space left on device)") == 1
    bad(data, 3, "fourth")
    rows = (tmp_path / "bad_images.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["name", "image 0", "image 1", "image 2", "image 3"]
    assert len(BadImages(ReadingSettings(on_error="skip"), tmp_path)._listed) == 4


@pytest.mark.parametrize("content", [b"\xff\xfe\0", b"name\n\0", b"other,columns\n1,2\n"])
def test_a_damaged_list_of_images_ends_nothing(tmp_path, content):
    (tmp_path / "bad_images.csv").write_bytes(content)
    assert BadImages(ReadingSettings(on_error="skip"), tmp_path)._listed == set()


def test_a_profile_that_cannot_be_written_is_a_note(tmp_path, monkeypatch):
    monkeypatch.setattr("sysds_resnet.training.profiling.tabulate", fail(errno.ENOSPC))
    monkeypatch.setattr("sysds_resnet.training.profiling._layer_names", lambda state: [])
    engine = SimpleNamespace(collection_seconds=lambda: 0.0, record=nullcontext)
    state = SimpleNamespace(model=SimpleNamespace(engine=engine), update=lambda *_: "metrics")
    notes = []
    profiler = StepProfiler(state, 1, 2, tmp_path, notes.append)
    assert [profiler.update(None, None, None) for _ in range(2)] == ["metrics", "metrics"]
    assert notes == ["profile not written: no space left on device; the run goes on"]
