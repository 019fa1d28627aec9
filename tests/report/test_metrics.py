"""The record of a run and the picture of it."""

import json
import os
import resource

import numpy as np

from sysds_resnet.report.metrics import MetricsFile, read_lines
from sysds_resnet.report.pictures import plot_curves


def test_a_resumed_record_drops_later_and_unfinished_lines(tmp_path):
    record = MetricsFile(tmp_path)
    for step in (1, 2, 3):
        record.write("step", step=step, loss=0.5)
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"event": "step", "st')  # killed while writing
    MetricsFile(tmp_path, step=2).write("epoch", step=2)
    assert [(line["event"], line["step"]) for line in read_lines(tmp_path / "metrics.jsonl")] == [
        ("step", 1),
        ("step", 2),
        ("epoch", 2),
    ]
    assert os.listdir(tmp_path) == ["metrics.jsonl"]


def test_curves_are_drawn_before_the_first_logged_step(tmp_path):
    epoch = dict(epoch=1, step=2, train_loss=1.0, val_loss=1.0, val_top1=0.5, val_top5=1.0)
    MetricsFile(tmp_path).write("epoch", **epoch)
    plot_curves(tmp_path, "title")
    assert (tmp_path / "curves.png").exists()


def test_numbers_that_are_not_finite_are_null_and_lines_have_the_time(tmp_path):
    MetricsFile(tmp_path).write("step", step=1, loss=np.nan, norm=float("inf"), lr=0.1)
    line = json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=None)
    assert (line["loss"], line["norm"], line["lr"]) == (None, None, 0.1) and line["time"] > 1.7e9


def test_an_epoch_that_was_not_evaluated_is_written_anew(tmp_path):
    record = MetricsFile(tmp_path)
    for event, step in (("step", 1), ("step", 2), ("epoch", 2)):
        record.write(event, step=step)
    MetricsFile(tmp_path, step=2, evaluated=False)
    assert [line["event"] for line in read_lines(tmp_path / "metrics.jsonl")] == ["step", "step"]


def test_lines_that_a_full_disk_does_not_take_come_later(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    notes = []
    record = MetricsFile(tmp_path, note=notes.append)
    try:
        for step in range(1, 20):
            if step == 3:  # from the middle of a line on
                size = (tmp_path / "metrics.jsonl").stat().st_size
                resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, limits[1]))
            record.write("step", step=step)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [line["step"] for line in read_lines(tmp_path / "metrics.jsonl")] == [1, 2]
    assert len(notes) == 1 and notes[0].startswith(f"{tmp_path / 'metrics.jsonl'}: not written (")
    record.write("step", step=20)
    assert [line["step"] for line in read_lines(tmp_path / "metrics.jsonl")] == list(range(1, 21))
