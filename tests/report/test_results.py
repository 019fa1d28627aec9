"""Rows of results from made-up run folders, with figures worked out by hand."""

import json

import pytest
import yaml
from command_line import assert_one_line_error, run_here

from sysds_resnet.report.metrics import MetricsFile
from sysds_resnet.report.result_tables import duration, tables
from sysds_resnet.report.results import GIB, results_row

CONFIG = {
    "model": "resnet50",
    "image_size": 224,
    "precision": "single",
    "batch_size": 512,
    "micro_batch": 128,
}
BATCH, STEPS = 512, 4  # images in a step, steps in an epoch
STEP_S, EVALUATION_S = 8.0, 20.0


@pytest.fixture
def make(tmp_path):
    """Makes run folders of so many whole epochs."""

    def write(name="run", epochs=2, log_every=1, step_s=STEP_S, **config):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.yaml").write_text(yaml.safe_dump({**CONFIG, "epochs": 2, **config}))
        record, now = MetricsFile(folder), 1000.0
        for epoch in range(1, epochs + 1):
            for step in range(STEPS * (epoch - 1) + 1, STEPS * epoch + 1):
                now += step_s
                if step % log_every == 0:
                    write_step(record, epoch, step, step_s, time=now)
            now += EVALUATION_S
            write_epoch(record, epoch, STEPS, step_s, time=now)
        return folder

    return write


def write_step(record, epoch, step, seconds, **values):
    record.write("step", epoch=epoch, step=step, loss=1.0, seconds=seconds, **values)


def write_epoch(record, epoch, steps, step_s, top1=None, **values):
    """The line of an epoch of which a session did so many steps."""
    speed = BATCH / step_s if steps else None
    scores = {"val_loss": 1.0, "val_top1": epoch / 10 if top1 is None else top1}
    step = STEPS * epoch
    record.write(
        "epoch", epoch=epoch, step=step, images_per_s=speed, seconds=steps * step_s, **scores, **values
    )


# Figures


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (45.4, "45s"),
        (204, "3m24s"),
        (3599.6, "1h"),
        (12 * 3600 + 43 * 60 + 29, "12h43m"),
        (12 * 3600 + 43 * 60 + 31, "12h44m"),
        (11 * 3600, "11h"),
        (86399, "1d"),
        (4 * 86400 + 3 * 3600, "4d3h"),
        (100 * 86400 + 60, "100d"),
    ],
)
def test_durations_have_the_two_largest_units(seconds, text):
    assert duration(seconds) == text


def test_a_row_has_the_figures_of_the_run(make):
    row = results_row(make())
    assert (row.model, row.precision, row.cards, row.batch_size) == ("resnet50", "FP32", 4, 128)
    assert row.images == 2 * 4 * 512
    assert row.train_seconds == pytest.approx(2 * 4 * 8)
    assert row.evaluation_seconds == pytest.approx(2 * 20)
    assert row.images_per_s == pytest.approx(64)
    assert row.top1 == 0.2 and row.stability == 1
    assert tables([row]).splitlines() == [
        "| Model | Workers | FP32 | AMP |",
        "| --- | --- | --- | --- |",
        "| resnet50 | x4 | Acc@1=20.00, FPS=64.0, Time=1m44s, BatchSize=128 | not measured |",
        "",
        "| Convergence criteria | Configuration (x denotes number of workers) | Performance (images/s) "
        "| Accuracy (%) | Power (W) | Scalability | Memory (GiB) | Stability |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        "| 2 epochs | resnet50, bs:128, 4x, FP32 | 64.0 "
        "| 20.00 | not measured | not measured | not measured | 1 |",
    ]


@pytest.mark.parametrize("config", [{"device": "gpu"}, {"device": "cuda:0"}, {"gpus": 4}])
def test_shares_of_batches_on_gpus_are_cards(make, config):
    text = tables([results_row(make(**config)), results_row(make("other"))])
    assert text.startswith("| Model | Cards |") and "(x denotes number of cards)" in text


@pytest.mark.parametrize("log_every", [2, 3, 4])
def test_steps_that_are_not_logged_count_too(make, log_every):
    row = results_row(make(log_every=log_every))
    assert (row.images, row.train_seconds) == (2 * 4 * 512, pytest.approx(2 * 4 * 8))
    assert row.evaluation_seconds == pytest.approx(2 * 20)


def test_without_any_logged_step_epochs_are_counted_and_validations_are_not(make):
    row = results_row(make(log_every=100))
    assert (row.images, row.train_seconds, row.evaluation_seconds) == (4096, pytest.approx(64), None)
    assert "Time=1m4s" in tables([row])


def test_batches_whose_shares_are_automatic_are_one_card(make):
    row = results_row(make(micro_batch="auto"))
    assert (row.cards, row.batch_size) == (1, 512)


@pytest.mark.parametrize(("precision", "name"), [("single", "FP32"), ("bf16", "AMP"), ("double", "FP64")])
def test_precisions_have_a_column_each(make, precision, name):
    table = tables([results_row(make(precision=precision))])
    heads, row = (table.splitlines()[i].split("|") for i in (0, 2))
    assert [head.strip() for head, cell in zip(heads, row, strict=True) if "FPS" in cell] == [name]


def test_power_is_a_mean_and_memory_a_peak(make):
    folder = make()
    record = MetricsFile(folder, step=8)
    for power, rss, gpu in ((300.0, 5, 10), (200.0, 7, 29), (100.0, 6, 20)):
        figures = {"gpu_power_w": power, "rss_bytes": rss * GIB, "gpu_memory_bytes": gpu * GIB}
        record.write("resources", step=8, cpu_percent=1.0, **figures)
    row = results_row(folder)
    assert (row.power_w, row.rss_gib, row.gpu_gib) == (200, 7, 29)
    assert "| 200 | not measured | 29.0 GPU, 7.0 RAM |" in tables([row])


# Sessions


def resumed(make, log_every=1):
    """A run whose second epoch was stopped after 2 steps of 8 s, and went on a day later with 2 of 16 s."""
    folder = make(epochs=1, log_every=log_every)
    record = MetricsFile(folder, step=6)
    for step, seconds, time in ((5, 8, 1060), (6, 8, 1068), (7, 16, 90000), (8, 16, 90016)):
        if step % log_every == 0:
            write_step(record, 2, step, seconds, time=time)
    write_epoch(record, 2, 2, 16, time=90016 + 30)
    return folder


def test_time_of_a_resumed_run_is_that_of_all_sessions_and_not_of_the_pause(make):
    row = results_row(resumed(make))
    assert row.images == 8 * 512
    assert row.train_seconds == pytest.approx(4 * 8 + 2 * 8 + 2 * 16)
    assert row.images_per_s == pytest.approx(8 * 512 / 80)
    assert row.evaluation_seconds == pytest.approx(20 + 30)
    assert (row.stability, row.disturbances) == (0, ["resumed in epoch 2"])


def test_a_resumed_run_that_logs_every_second_step_takes_as_long(make):
    row = results_row(resumed(make, log_every=2))
    assert (row.images, row.train_seconds) == (8 * 512, pytest.approx(80))
    assert row.evaluation_seconds == pytest.approx(20 + 30)


def test_a_run_resumed_before_a_validation_takes_the_mean_of_the_others_for_it(make):
    folder = make(epochs=1)
    record = MetricsFile(folder, step=8)
    for step in range(5, 9):
        write_step(record, 2, step, 8, time=1060 + 8 * (step - 5))
    write_epoch(record, 2, 0, 0.5, time=90000)
    row = results_row(folder)
    assert (row.images, row.train_seconds) == (8 * 512, pytest.approx(8 * 8))
    assert row.evaluation_seconds == pytest.approx(20 + 20)


def test_a_run_under_way_counts_what_it_has_done(make):
    folder = make(epochs=1)
    record = MetricsFile(folder, step=6)
    for step in (5, 6):
        write_step(record, 2, step, 24.0, time=1100 + step)
    row = results_row(folder)
    assert (row.images, row.train_seconds) == (6 * 512, pytest.approx(4 * 8 + 2 * 24))
    assert row.top1 == 0.1 and row.disturbances == ["not there after 1 epochs"]


def test_a_run_in_its_first_epoch_has_no_accuracy(make):
    folder = make(epochs=0)
    record = MetricsFile(folder)
    write_step(record, 1, 1, 4.0)
    row = results_row(folder)
    assert (row.images_per_s, row.top1, row.evaluation_seconds) == (128, None, 0)
    assert "Acc@1=not measured, FPS=128, Time=4s" in tables([row])


# Stability


def test_skipped_steps_are_no_stability(make):
    folder = make()
    text = (folder / "metrics.jsonl").read_text().replace('"loss": 1.0', '"loss": null, "skipped": true', 1)
    (folder / "metrics.jsonl").write_text(text)
    row = results_row(folder)
    assert (row.stability, row.disturbances) == (0, ["1 steps skipped"])
    assert tables([row]).endswith("| 0; 1 steps skipped |")


@pytest.mark.parametrize(("threshold", "stability"), [(10.0, 1), (75.9, 0)])
def test_a_threshold_is_the_criterion_where_there_is_one(make, threshold, stability):
    row = results_row(make(epochs=1, acc_thresh=threshold))
    assert (row.criterion, row.stability) == (f"top1 {threshold:g}%", stability)


# Several runs


def test_scalability_is_speed_by_cards_times_the_speed_of_one(make):
    one = results_row(make("one", micro_batch=512, step_s=6.4))
    assert one.cards == 1 and one.images_per_s == pytest.approx(80)
    assert results_row(make("four"), one).scalability == pytest.approx(64 / (4 * 80))
    assert results_row(make("amp", precision="bf16"), one).scalability is None
    assert results_row(make("small", model="resnet18"), one).scalability is None


def test_the_command_prints_runs_together_and_writes_each(make, capfd):
    base, four, amp = make("base", micro_batch=512), make("four"), make("amp", precision="bf16", step_s=4.0)
    outcome = run_here(capfd, "results", four, amp, base, "--baseline", base)
    assert (outcome.code, outcome.err) == (0, "")
    lines = outcome.out.splitlines()
    assert lines[2] == (
        "| resnet50 | x4 | Acc@1=20.00, FPS=64.0, Time=1m44s, BatchSize=128 "
        "| Acc@1=20.00, FPS=128, Time=1m12s, BatchSize=128 |"
    )
    assert "BatchSize=512 | not measured |" in lines[3]
    assert [line.split("|")[6].strip() for line in lines[7:]] == ["0.25", "not measured", "1.00"]
    written = json.loads((four / "results.json").read_text())
    assert (written["scalability"], written["images"], written["cards"]) == (0.25, 4096, 4)
    assert (amp / "results.md").read_text() == tables([results_row(amp)]) + "\n"


# Refusals


def test_what_is_no_run_is_named(make, tmp_path, capfd):
    outcome = run_here(capfd, "results", tmp_path / "none")
    assert_one_line_error(outcome, tmp_path / "none" / "config.yaml", "found no readable file")
    empty = make(epochs=0)
    outcome = run_here(capfd, "results", empty)
    assert_one_line_error(outcome, empty / "metrics.jsonl", "found no readable file")
    (empty / "metrics.jsonl").write_text('{"event": "resources", "step": 0}\n')
    outcome = run_here(capfd, "results", empty)
    assert_one_line_error(outcome, empty / "metrics.jsonl", "found no step")
    (empty / "metrics.jsonl").write_text('{"event": "step", "step": 1}\n')
    assert_one_line_error(run_here(capfd, "results", empty), empty, "found files of another kind", "epoch")
    (empty / "config.yaml").write_text("epochs: 2\n")
    assert_one_line_error(run_here(capfd, "results", empty), empty, "found files of another kind")


def test_a_baseline_of_several_cards_is_refused(make, capfd):
    outcome = run_here(capfd, "results", make("run"), "--baseline", make("four"))
    assert_one_line_error(outcome, "baseline: found four with 4 workers, expected 1")


def test_no_run_is_refused(capfd):
    assert run_here(capfd, "results").code == 2
