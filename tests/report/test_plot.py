"""Pictures and pages of runs: what is drawn of their records, and what cannot be drawn."""

import math

import numpy as np
import pandas as pd
import pytest
from command_line import assert_one_line_error, run_here
from drawn_pages import LINES, draw, figure_of, make_run, table_of, traces_of, write_record
from PIL import Image

from sysds_resnet import plot
from sysds_resnet.report.charts import BUCKETS, read_run
from sysds_resnet.report.pictures import plot_curves, write_png


@pytest.fixture
def draw_page(capfd, monkeypatch):
    """Draw without the picture, which takes longer."""
    monkeypatch.setattr(plot, "write_png", lambda *_: None)
    return lambda *arguments: draw(capfd, *arguments)


def test_a_page_holds_what_the_record_says(draw_page, tmp_path):
    lines = make_run(tmp_path / "run")
    draw_page(tmp_path / "run")
    found = traces_of(tmp_path / "run" / "curves.html")
    for unit, name, event, column, scale in LINES:
        x, y = found.pop((unit, name))
        of_event = [line for line in lines if line["event"] == event]
        np.testing.assert_array_equal(x, [line["step"] for line in of_event])
        np.testing.assert_allclose(y, [scale * line[column] for line in of_event], rtol=1e-15)
    for name in ("step", "epoch"):  # a share of the time
        of_event = [line for line in lines if line["event"] == name]
        expected = [100 * line["data_wait_s"] / line["seconds"] for line in of_event]
        np.testing.assert_allclose(found.pop(("% of the time", name))[1], expected)
    assert not found


@pytest.mark.parametrize(
    ("axis", "expected"),
    [("step", np.arange(1, 16)), ("epoch", np.arange(1, 16) / 5), ("hours", np.arange(1, 16) / 60)],
)
def test_lines_are_drawn_over_the_axis_asked_for(draw_page, tmp_path, axis, expected):
    make_run(tmp_path / "run")  # of a minute a step
    draw_page(tmp_path / "run", "--x", axis)
    np.testing.assert_allclose(traces_of(tmp_path / "run" / "curves.html")["L2 norm", "step"][0], expected)


def test_several_runs_share_charts_and_are_compared_in_a_table(draw_page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    records = {name: make_run(tmp_path / name, epochs, epochs, base_lr=lr, precision="bf16")
               for name, epochs, lr in (("one", 2, 4.0), ("two", 3, 8.0))}  # fmt: skip
    assert draw_page("one", "two") == "curves.png\ncurves.html\n"
    page = tmp_path / "curves.html"
    found, table = traces_of(page), table_of(page)
    assert list(table) == ["one", "two"]
    for name, lines in records.items():
        epochs = pd.DataFrame([line for line in lines if line["event"] == "epoch"])
        x, y = found["%", f"{name}: top-1, validation"]
        np.testing.assert_array_equal(x, epochs["step"])
        np.testing.assert_allclose(y, 100 * epochs["val_top1"])
        best = epochs["val_top1"].max()
        row = table[name]
        assert row["top-1 (%)"] == f"{100 * epochs['val_top1'].iloc[-1]:.2f}"
        assert row["best top-1 (%)"] == f"{100 * best:.2f} in epoch {1 + epochs['val_top1'].argmax()}"
        assert row["validation loss"] == f"{epochs['val_loss'].iloc[-1]:.4f}"
    assert [row["base_lr"] for row in table.values()] == ["4.0", "8.0"]
    assert not {"precision", "model", "momentum"} & set(table["one"]), "they do not differ"
    data, _ = figure_of(page)
    colors = {one: {t["line"]["color"] for t in data if t["name"].startswith(f"{one}:")} for one in records}
    assert all(len(found) == 1 for found in colors.values()) and colors["one"] != colors["two"]


def test_pictures_are_drawn_of_one_and_of_several_runs(capfd, tmp_path):
    for name in ("one", "_two $x$"):
        make_run(tmp_path / name)
    draw(capfd, tmp_path / "one", tmp_path / "_two $x$", "--out", tmp_path / "new" / "out")
    draw(capfd, tmp_path / "one")
    sizes = []
    for folder in ("one", "new/out"):
        with Image.open(tmp_path / folder / "curves.png") as picture:
            assert len(np.unique(np.asarray(picture.convert("L")))) > 50
            sizes.append(picture.size)
    assert sizes[1][1] > sizes[0][1], "the names need room"
    assert sorted(f.name for f in (tmp_path / "new" / "out").iterdir()) == ["curves.html", "curves.png"]


def test_runs_of_the_same_name_are_told_apart_by_their_paths(draw_page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a/run", "b/run", "c"):
        make_run(tmp_path / name)
    draw_page("a/run", "b/run", "c", "c/../c")
    assert list(table_of(tmp_path / "curves.html")) == ["a/run", "b/run", "c"]


def test_an_unfinished_line_and_updates_left_out_are_no_hindrance(draw_page, tmp_path):
    lines = make_run(tmp_path / "run")
    broken = next(line for line in lines if line["event"] == "step" and line["step"] == 7)
    broken |= {"loss": None, "grad_norm": math.nan, "skipped": True}
    write_record(tmp_path / "run", lines)
    with open(tmp_path / "run" / "metrics.jsonl", "a") as file:
        file.write('{"event": "step", "st')
    draw_page(tmp_path / "run")
    found = traces_of(tmp_path / "run" / "curves.html")
    x, y = found["cross-entropy (nats)", "train, step"]
    assert x[np.isnan(y)].tolist() == [7], "the line has a gap there"
    x, y = found["learning rate", "update left out"]
    assert (x.tolist(), y.tolist()) == ([7], [broken["lr"]])


def test_charts_that_an_old_run_has_no_values_for_are_left_out(draw_page, tmp_path):
    make_run(tmp_path / "old", old=True)
    (tmp_path / "old" / "config.yaml").unlink()
    draw_page(tmp_path / "old")
    page = tmp_path / "old" / "curves.html"
    units = ["cross-entropy (nats)", "%", "learning rate", "training images/s", "% of the time"]
    assert list(dict.fromkeys(unit for unit, _ in traces_of(page))) == units
    make_run(tmp_path / "new")
    draw_page(tmp_path / "old", tmp_path / "new", "--out", tmp_path)
    found = traces_of(tmp_path / "curves.html")
    assert ("L2 norm", "new: step") in found and ("L2 norm", "old: step") not in found


def test_long_lines_are_thinned_without_losing_what_stands_out(draw_page, tmp_path):
    losses = np.random.default_rng(0).uniform(1, 2, 20_000)
    losses[[7_777, 15_555]] = 100, 0.001
    steps = [{"event": "step", "step": i, "loss": loss} for i, loss in enumerate(losses.tolist(), 1)]
    write_record(tmp_path / "run", steps)
    draw_page(tmp_path / "run")
    x, y = traces_of(tmp_path / "run" / "curves.html")["cross-entropy (nats)", "train, step"]
    assert len(x) <= 2 * BUCKETS + 2 and (np.diff(x) > 0).all()
    assert (x[0], x[-1]) == (1, 20_000)
    np.testing.assert_array_equal(y, losses[x.astype(int) - 1])
    assert {7_778, 15_556} <= set(x)


def test_training_draws_even_where_nothing_is_finite(tmp_path):
    write_record(tmp_path, [{"event": "epoch", "step": 2, "epoch": 1, "train_loss": math.nan}])
    with Image.open(plot_curves(tmp_path, "title")) as picture:
        picture.verify()


@pytest.mark.parametrize(
    ("record", "flags", "found"),
    [
        (None, [], "expected a run"),
        ("", [], "wait for its first step"),
        ('{"event": "step", "st', [], "wait for its first step"),
        ('["step", 1]\n', [], "found no finished line of a run"),
        ('{"event": "step", "step": 1, "loss": null}\n', [], "found no figure to draw"),
        ('{"event": "step", "step": 1, "loss": 1}\n', ["--x", "hours"], "found no times"),
        ('{"event": "step", "step": 1, "loss": 1}\n', ["--x=epoch"], "found no finished epoch"),
        ('{"event": "step", "step": 1, "loss": 1}\n', ["--images", 5], "without --schedule"),
        ('{"event": "step", "step": 1, "loss": 1}\n', ["--x", "days"], "x_axis: found days, expected 'step'"),
        ('{"event": "step", "step": 1, "loss": 1}\n', ["--schedule"], "runs: found"),
    ],
)
def test_what_cannot_be_drawn_is_one_line_and_no_file(capfd, tmp_path, record, flags, found):
    run = tmp_path / "run"
    run.mkdir()
    if record is not None:
        (run / "metrics.jsonl").write_text(record)
    assert_one_line_error(run_here(capfd, "plot", run, *flags), found)
    assert {file.name for file in run.iterdir()} <= {"metrics.jsonl"}


def test_a_run_that_is_not_there_and_a_file_in_the_way_are_one_line(capfd, tmp_path):
    assert_one_line_error(run_here(capfd, "plot", tmp_path / "nix"), tmp_path / "nix", "no such folder")
    make_run(tmp_path / "run")
    file = tmp_path / "run" / "config.yaml"
    assert_one_line_error(
        run_here(capfd, "plot", tmp_path / "run", "--out", file), "out: found the file", file
    )


@pytest.mark.parametrize("high", [1.1, 3, 30, 3000])
def test_a_logarithmic_axis_has_several_numbers(tmp_path, monkeypatch, high):
    def labels(self, *_, **__):
        loss = self.axes[0]
        low, top = loss.get_ylim()
        self.draw_without_rendering()
        ticks = zip(loss.get_yticks(), loss.get_yticklabels(), strict=True)
        found.append([label.get_text() for place, label in ticks if low <= place <= top])

    found = []
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", labels)
    values = np.geomspace(0.9, high, 20)
    lines = [{"event": "step", "step": i + 1, "epoch": 1, "loss": loss} for i, loss in enumerate(values)]
    write_record(tmp_path, [{**line, "time": 1.8e9 + i} for i, line in enumerate(lines)])
    write_png([read_run(tmp_path)], "title", "step", tmp_path / "curves.png")
    assert len(found[0]) >= 3 and all(found[0])
