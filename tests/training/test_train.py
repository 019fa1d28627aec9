"""The train command: what a run folder holds, and runs that were stopped, killed or damaged."""

import errno
import json
import os
import re
import shlex
import shutil
import signal
import subprocess

import numpy as np
import pytest
import yaml
from command_line import (
    assert_gone,
    assert_one_line_error,
    finish,
    jvms_of,
    run_here,
    share_engine,
    start_process,
    wait_for,
)
from PIL import Image
from training_runs import SETTINGS, assert_same_end, assert_same_weights, lines

from sysds_resnet import train
from sysds_resnet.errors import EngineDied, OutOfMemory
from sysds_resnet.network.weights.files import read_metadata
from sysds_resnet.report import run_report as report
from sysds_resnet.report.metrics import read_metrics
from sysds_resnet.scoring import evaluation
from sysds_resnet.train import TrainSettings
from sysds_resnet.training import run as run_module
from sysds_resnet.training.state import State

STEPS, EPOCHS = 2, 2  # steps in an epoch; as few as leave room to stop in the middle of one
EPOCH_KEYS = ["event", "time", "epoch", "step", "train_loss", "val_loss", "val_top1", "val_top5", "lr"]
EPOCH_KEYS += ["images_per_s", "seconds", "data_wait_s"]


@pytest.fixture(scope="module")
def run(engine, tmp_path_factory):
    """A folder of a run that nothing disturbed; no test changes it."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    with pytest.MonkeyPatch.context() as patch:
        share_engine(patch, engine)
        assert train.main([*SETTINGS, "--out", str(folder)]) == 0
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def copied(run, tmp_path):
    """A copy of it that a test may change, with links in place of its large files."""
    folder = tmp_path / "copied"
    shutil.copytree(run, folder, copy_function=lambda a, b: (link_or_copy(a, b), b)[1])
    yield folder
    shutil.rmtree(folder)


def link_or_copy(source, destination):
    (os.link if source.endswith(".safetensors") else shutil.copy)(source, destination)


def contents(folder):
    """The files below a folder and when they were changed."""
    return {path: path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))}


# What a run leaves


def test_the_run_folder_holds_the_documented_files(run):
    names = {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()}
    assert names == {
        "config.yaml",
        "classes.txt",
        "metrics.jsonl",
        "weights.safetensors",
        "best.safetensors",
        "curves.png",
        "results.json",
        "results.md",
        "checkpoints/step-00000002.safetensors",
        "checkpoints/step-00000004.safetensors",
    }


def test_metrics_have_a_line_for_each_step_and_epoch(run):
    kinds = [(line["event"], line["epoch"], line["step"]) for line in lines(run)]
    expected = []
    for epoch in range(1, EPOCHS + 1):
        expected += [("step", epoch, STEPS * (epoch - 1) + k) for k in range(1, STEPS + 1)]
        expected += [("epoch", epoch, STEPS * epoch)]
    assert kinds == expected


@pytest.mark.long
@pytest.mark.usefixtures("shared")
def test_sizes_of_evaluation_go_with_the_weights(folder, capfd):
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for k in range(8):
            path = folder / "data" / split / "ab"[k % 2] / f"{k}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (60, 50, 3), dtype=np.uint8)).save(path)
    data = ["--dataset", folder / "data"]
    sizes = ["--image-size", "32", "--eval-size", "40", "--resize-size", "44"]
    options = ["--model", "resnet18", "--epochs", "1", "--batch-size", "4", "--optimizer", "sgd"]
    outcome = run_here(capfd, "train", *data, *sizes, *options, "--out", folder / "run")
    assert (outcome.code, outcome.err) == (0, "")
    metadata = read_metadata(folder / "run" / "weights.safetensors")
    assert (metadata["image_size"], metadata["resize_size"]) == ([40, 40], 44)
    assert (folder / "run" / "classes.txt").read_text() == "a\nb\n"
    loss = read_metrics(folder / "run", "epoch")["val_loss"].iloc[-1]
    for flags, same in (([], True), (["--image-size", "32"], False), (["--resize-size", "50"], False)):
        out = folder / "scores"
        outcome = run_here(capfd, "evaluate", *data, "--weights", folder / "run", "--out", out, *flags)
        assert (outcome.code, outcome.err) == (0, "")
        assert (
            json.loads((out / "scores.json").read_text())["loss"] == pytest.approx(loss, rel=1e-12)
        ) == same


def test_epoch_lines_have_the_documented_keys_and_means(run):
    for text in (run / "metrics.jsonl").read_text().splitlines():
        line = json.loads(text)
        if line["event"] == "epoch":
            assert list(line) == EPOCH_KEYS
            assert line["images_per_s"] == pytest.approx(16 / line["seconds"])
    steps, epochs = read_metrics(run, "step"), read_metrics(run, "epoch")
    means = steps.groupby("epoch")["loss"].mean().to_numpy()
    np.testing.assert_allclose(epochs["train_loss"], means)
    assert epochs["val_top1"].between(0, 1).all() and (epochs["val_top5"] == 1).all()  # of 4 classes


def test_the_learning_rate_warms_up_and_decays(run):
    rates = read_metrics(run, "step")["lr"].to_numpy()
    np.testing.assert_allclose(rates, 0.01 * np.array([1 / 3, 2 / 3, 1, (1 / 2) ** 2]))


def test_weights_carry_what_prediction_needs(run):
    beside = read_metadata(run / "weights.safetensors")
    assert beside["image_size"] == [32, 32]
    assert beside["classes"] == [f"pattern{i}" for i in range(4)]
    assert len(beside["mean"]) == len(beside["std"]) == 3


def test_curves_are_a_picture(run):
    with Image.open(run / "curves.png") as picture:
        assert picture.format == "PNG"
        colours = np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)
    assert len(colours) > 50, "more than an empty page"


def test_config_names_every_setting_that_matters(run):
    config = yaml.safe_load((run / "config.yaml").read_text())
    others = {"amp", "config", "debug", "dry_run", "out", "resume"}
    assert set(config) == set(TrainSettings.model_fields) - others
    assert config["base_lr"] == 0.01 and config["micro_batch"] == 4 and config["image_size"] == 32


def test_the_same_config_gives_the_same_weights(run, shared, capfd, tmp_path):
    outcome = run_here(capfd, "train", "--config", run / "config.yaml", "--out", tmp_path / "again")
    assert outcome.code == 0, outcome
    assert_same_weights(tmp_path / "again", run)
    assert lines(tmp_path / "again") == lines(run)
    shutil.rmtree(tmp_path / "again")


# Runs that end early


def test_ctrl_c_ends_a_run_after_the_step_under_way(run, shared, capfd, tmp_path):
    folder = tmp_path / "a run"
    process = start_process("train", *SETTINGS, "--out", folder)
    wait_for(process, lambda: (folder / "metrics.jsonl").exists())
    [jvm] = jvms_of(process)
    for flags in (["--resume", folder], [*SETTINGS, "--out", folder]):  # while it is at work
        refused = run_here(capfd, "train", *flags)
        assert_one_line_error(refused, f"{folder}: found a run at work there, process {process.pid} on")
    process.send_signal(signal.SIGINT)
    outcome = finish(process)
    assert (outcome.code, outcome.err) == (0, "\nstopping after this step; once more to stop at once\n")
    found = re.search(r"^stopped at step (\d); continue with: \S+ -m (.*)$", outcome.out, re.MULTILINE)
    steps, command = int(found[1]), shlex.split(found[2])
    assert 1 <= steps < STEPS * EPOCHS and command == ["sysds_resnet.train", "--resume", str(folder)]
    assert_gone(jvm)
    assert not (folder / "weights.safetensors").exists()
    outcome = run_here(capfd, "train", *command[1:])
    assert outcome.code == 0, outcome
    assert f", from step {steps}\n" in outcome.out
    assert_same_end(folder, run)
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGTERM,
        pytest.param(signal.SIGINT, marks=pytest.mark.long),
        pytest.param(signal.SIGHUP, marks=pytest.mark.long),
    ],
)
def test_a_signal_before_the_first_step_ends_a_run_without_one(run, shared, capfd, tmp_path, number):
    folder = tmp_path / "run"
    process = start_process("train", *SETTINGS, "--out", folder)
    wait_for(process, lambda: (folder / "config.yaml").exists())
    [jvm] = jvms_of(process)
    process.send_signal(number)
    outcome = finish(process)
    assert outcome.code == 0 and "\nstopped at step 0; continue with: " in outcome.out, outcome
    assert_gone(jvm)
    shutil.rmtree(folder)


def test_a_second_signal_ends_a_run_at_once(tmp_path):
    process = start_process("train", *SETTINGS, "--out", tmp_path / "run")
    wait_for(process, lambda: jvms_of(process))
    [jvm] = jvms_of(process)
    process.send_signal(signal.SIGINT)
    assert process.stderr.readline() == "\n"  # it was heeded
    process.send_signal(signal.SIGINT)
    outcome = finish(process)
    assert outcome.code == 130 and outcome.err.endswith("interrupted\n"), outcome
    assert_gone(jvm)


def test_a_run_stopped_in_its_evaluation_evaluates_when_resumed(run, shared, capfd, monkeypatch, tmp_path):
    """An evaluation may take an hour; it need not be waited for."""
    folder, batches = tmp_path / "run", []

    def stopping(engine, dataset, *arguments):
        for batch in read_all(engine, dataset, *arguments):
            batches.append(batch)
            if len(batches) == 1:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    read_all = evaluation.read_all
    monkeypatch.setattr(evaluation, "read_all", stopping)
    outcome = run_here(capfd, "train", *SETTINGS, "--out", folder)
    assert outcome.code == 0 and f"stopped at step {STEPS}; continue" in outcome.out
    assert [line["event"] for line in lines(folder)] == ["step"] * STEPS
    outcome = run_here(capfd, "train", "--resume", folder)
    assert outcome.code == 0, outcome
    assert_same_end(folder, run)
    shutil.rmtree(folder)


def test_a_finished_run_can_be_resumed_to_write_its_weights_again(run, copied, shared, capfd):
    """With settings that do not change the weights, which may differ."""
    (copied / "weights.safetensors").unlink()
    outcome = run_here(capfd, "train", "--resume", copied, "--heap", "2g", "--workers", 1, "--log-every", 9)
    assert (outcome.code, outcome.err) == (0, "")
    assert_same_weights(copied, run)
    assert lines(copied) == lines(run)


def test_a_damaged_checkpoint_is_named_and_the_one_before_used(run, copied, shared, capfd):
    newest = copied / "checkpoints" / "step-00000004.safetensors"
    whole = newest.read_bytes()
    newest.unlink()  # it is a link
    newest.write_bytes(whole[: len(whole) // 2])
    outcome = run_here(capfd, "train", "--resume", copied)
    assert outcome.code == 0 and ", from step 2\n" in outcome.out, outcome
    assert f"weights: {copied / 'checkpoints' / 'step-00000002.safetensors'}\n" in outcome.out
    assert outcome.err.startswith(f"warning: {newest}: found a damaged checkpoint (")
    assert_same_end(copied, run)


def test_memory_that_runs_out_halves_the_micro_batch(shared, capfd, monkeypatch, tmp_path):
    """As if the heap held no more than two images; the other run has two from the start."""
    update = State.update

    def limited(state, images, labels, optimizer):
        if optimizer.micro_batch > 2:
            raise OutOfMemory("JVM: found its heap full")
        return update(state, images, labels, optimizer)

    monkeypatch.setattr(State, "update", limited)
    short = [*SETTINGS, "--epochs", 1]
    outcome = run_here(capfd, "train", *short, "--micro-batch", 8, "--out", tmp_path / "run")
    assert outcome.code == 0, outcome
    assert outcome.err == "".join(
        f"warning: JVM: found its heap full; going on with micro_batch {n} in place of {2 * n}\n"
        for n in (4, 2)
    )
    config = (tmp_path / "run" / "config.yaml").read_text()
    assert yaml.safe_load(config)["micro_batch"] == 2
    assert "# micro_batch 4 in place of 8 from step 0 on: JVM: found its heap full\n" in config
    record = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    changes = [line for line in map(json.loads, record) if line["event"] == "micro_batch"]
    assert [(line["micro_batch_before"], line["micro_batch"]) for line in changes][-1] == (4, 2)
    outcome = run_here(capfd, "train", *short, "--micro-batch", 2, "--out", tmp_path / "other")
    assert (outcome.code, outcome.err) == (0, "")
    assert_same_end(tmp_path / "run", tmp_path / "other")
    for name in ("run", "other"):
        shutil.rmtree(tmp_path / name)


def dying(times, error, step=3):
    """A step in the place of `State.update` whose JVM ends some times at one step."""
    update, left = State.update, [error] * times

    def step_or_death(state, *arguments):
        if state.progress.step == step - 1 and left:
            raise left.pop()
        return update(state, *arguments)

    return step_or_death


def test_a_jvm_that_ends_is_replaced_and_leaves_no_trace(run, shared, capfd, monkeypatch, tmp_path):
    """Not for a full heap: with the same micro-batch, so that the result is the same bit by bit."""
    monkeypatch.setattr(State, "update", dying(2, EngineDied("JVM: killed")))
    outcome = run_here(capfd, "train", *SETTINGS, "--out", tmp_path / "run")
    assert outcome.code == 0, outcome
    line = "warning: JVM: killed; going on in a new one from step 2, with the same micro-batch\n"
    assert outcome.err == 2 * line
    assert_same_end(tmp_path / "run", run)
    assert (tmp_path / "run" / "config.yaml").read_text() == (run / "config.yaml").read_text()
    shutil.rmtree(tmp_path / "run")


def test_a_jvm_that_always_ends_ends_the_run_which_goes_on_later(run, shared, capfd, monkeypatch, tmp_path):
    with monkeypatch.context() as patch:
        patch.setattr(State, "update", dying(99, EngineDied("JVM: killed"), step=4))
        outcome = run_here(capfd, "train", *SETTINGS, "--out", tmp_path / "run")
    last = outcome.err.splitlines()[-1]
    assert outcome.code == 2, outcome
    assert last.startswith(
        "error: JVM: killed; the run goes on from the checkpoint of step 2 (1 step is lost)"
    )
    command = shlex.split(last.partition(" with: ")[2])
    assert run_here(capfd, "train", *command[3:]).code == 0
    assert_same_end(tmp_path / "run", run)
    shutil.rmtree(tmp_path / "run")


@pytest.mark.long
def test_a_jvm_that_is_killed_leaves_no_trace(run, tmp_path):
    """A real one; without a checkpoint before."""
    process = start_process("train", *SETTINGS, "--out", tmp_path / "run")
    wait_for(process, lambda: (tmp_path / "run" / "metrics.jsonl").exists())
    [jvm] = jvms_of(process)
    jvm.kill()
    outcome = finish(process)
    assert outcome.code == 0, outcome
    assert re.match(r"warning: JVM: it ended with code -9 \(SIGKILL\): the system killed it", outcome.err)
    assert_same_end(tmp_path / "run", run)
    assert (tmp_path / "run" / "jvm.log").exists()
    shutil.rmtree(tmp_path / "run")


def test_memory_that_runs_out_before_a_run_has_begun_is_what_is_said(shared, capfd, monkeypatch, tmp_path):
    def full(*_):
        raise OutOfMemory("JVM: found its heap full")

    monkeypatch.setattr(run_module, "starting_model", full)
    outcome = run_here(capfd, "train", *SETTINGS, "--out", tmp_path / "run")
    assert (outcome.code, outcome.err) == (2, "error: JVM: found its heap full\n")
    assert not (tmp_path / "run").exists()


def test_micro_batches_of_one_image_are_warned_of(shared, capfd, monkeypatch, tmp_path):
    monkeypatch.setattr(State, "update", dying(1, KeyboardInterrupt(), step=1))
    flags = [*SETTINGS, "--micro-batch", 1, "--out", tmp_path / "run"]
    outcome = run_here(capfd, "train", *flags)
    assert outcome.code == 130
    first, second, last = outcome.err.splitlines()
    assert first.startswith("warning: micro_batch: found 1 image, expected several: ") and "--heap" in first
    assert re.match(r"continue with: \S+ -m sysds_resnet.train --resume ", second) and last == "interrupted"


def test_what_only_reports_never_ends_a_run(run, shared, capfd, monkeypatch, tmp_path):
    """The record, the curves, the results and the display fail from the first step to the last."""

    def fail(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    for name in ("MetricsFile._append", "plot_curves", "Display.step", "Display.epoch", "Display.note"):
        owner, _, method = name.rpartition(".")
        monkeypatch.setattr(getattr(report, owner) if owner else report, method, fail)
    monkeypatch.setattr(run_module, "write_results", fail)
    outcome = run_here(capfd, "train", *SETTINGS, "--out", tmp_path / "run")
    assert outcome.code == 0, outcome
    assert outcome.err.startswith("warning: results.md not written: ")
    assert_same_weights(tmp_path / "run", run)
    shutil.rmtree(tmp_path / "run")


def test_memory_that_is_not_enough_for_one_image_is_an_error(shared, capfd, monkeypatch, tmp_path):
    def failing(*_):
        raise OutOfMemory("JVM: found its heap full")

    monkeypatch.setattr(State, "update", failing)
    outcome = run_here(capfd, "train", *SETTINGS, "--out", tmp_path / "run")
    last = outcome.err.splitlines()[-1]
    assert outcome.code == 2 and last.startswith("error: JVM: found its heap full; the run goes on from"), (
        outcome
    )
    assert f"train --resume {tmp_path / 'run'}" in last


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_heap_that_is_too_small_halves_the_micro_batch(capfd, tmp_path):
    """A real one: the JVM ends, and another goes on."""
    data = ["--dataset", "synthetic", "--num-images", 128, "--num-classes", 4, "--image-size", 64]
    options = ["--model", "resnet18", "--epochs", 1, "--batch-size", 128, "--heap", "1g"]
    options += ["--micro-batch", 128, "--optimizer", "sgd", "--precision", "double"]
    outcome = run_here(capfd, "train", *data, *options, "--out", tmp_path / "run")
    assert outcome.code == 0, outcome
    assert re.search(
        r"^warning: JVM: found its heap of .* going on with micro_batch 64 in", outcome.err, re.M
    )
    assert yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["micro_batch"] < 128
    shutil.rmtree(tmp_path / "run")


# Refusals


@pytest.mark.parametrize(
    ("flags", "found"),
    [
        (["--batch-size", "16"], "batch_size: found 16, expected 8 as in"),
        (["--seed", "8"], "seed: found 8, expected 7 as in"),
        (["--epochs", "4"], "epochs: found 4, expected 2 as in"),
    ],
)
def test_other_settings_are_refused_when_resuming(run, shared, capfd, flags, found):
    before = contents(run)
    outcome = run_here(capfd, "train", "--resume", run, *flags)
    assert_one_line_error(outcome, found, run / "config.yaml", "resume with what the run began with")
    assert contents(run) == before


def test_a_folder_with_files_is_refused_for_a_new_run(run, shared, capfd):
    before = contents(run)
    outcome = run_here(capfd, "train", *SETTINGS, "--out", run)
    assert_one_line_error(outcome, f"{run}: found files there", "--out", f"--resume {run}")
    assert contents(run) == before


def test_resuming_needs_a_run(shared, capfd, tmp_path):
    outcome = run_here(capfd, "train", "--resume", tmp_path / "none")
    assert_one_line_error(outcome, f"{tmp_path / 'none'}: found no such folder", "--resume")


# The default


@pytest.mark.long
@pytest.mark.timeout(1300)
def test_the_default_reads_handwritten_digits_with_97_percent(tmp_path):
    process = start_process("train", "--out", tmp_path / "run")
    try:
        outcome = finish(process, timeout=1200)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    assert outcome.code == 0, outcome
    last = read_metrics(tmp_path / "run", "epoch").iloc[-1]
    assert last["epoch"] == 8 and last["val_top1"] >= 0.97
    assert "validation top-1" in outcome.out
    shutil.rmtree(tmp_path / "run")
