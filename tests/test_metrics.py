"""The record of a run and the picture of it."""

import os

from sysds_resnet.metrics import MetricsFile, read_lines
from sysds_resnet.plots import plot_curves


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
