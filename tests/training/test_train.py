"""The train command: what a run folder holds, when one is refused, and what the default ends with."""

import json
import shutil
import subprocess

import numpy as np
import pytest
import yaml
from command_line import assert_one_line_error, finish, run_here, start_process
from PIL import Image
from training_runs import EPOCHS, SETTINGS, STEPS, assert_same_weights, lines, train_undisturbed

from sysds_resnet.network.weights.files import read_metadata
from sysds_resnet.report.metrics import read_metrics
from sysds_resnet.train import TrainSettings

EPOCH_KEYS = ["event", "time", "epoch", "step", "train_loss", "val_loss", "val_top1", "val_top5", "lr"]
EPOCH_KEYS += ["images_per_s", "seconds", "data_wait_s"]


@pytest.fixture(scope="module")
def run(engine, tmp_path_factory):
    """A folder of a run that nothing disturbed; no test changes it."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    train_undisturbed(engine, folder)
    yield folder
    shutil.rmtree(folder)


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
        assert outcome.code == 0 and "took the weights at its end" in outcome.err, outcome
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
    assert epochs["val_top1"].between(0, 1).all() and epochs["val_top5"].isna().all()  # of 4 classes


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


@pytest.mark.long
def test_the_same_config_gives_the_same_weights(run, shared, capfd, tmp_path):
    outcome = run_here(capfd, "train", "--config", run / "config.yaml", "--out", tmp_path / "again")
    assert outcome.code == 0, outcome
    assert_same_weights(tmp_path / "again", run)
    assert lines(tmp_path / "again") == lines(run)
    shutil.rmtree(tmp_path / "again")


# Refusals


@pytest.mark.parametrize(
    ("flags", "found"),
    [
        (["--batch-size", "16"], "batch_size: found 16, expected 8 as in"),
        (["--seed", "8"], "seed: found 8, expected 7 as in"),
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
