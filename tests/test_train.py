"""The train command: what a run folder holds, and runs that were stopped, killed or damaged."""

import json
import os
import shutil
import signal
import subprocess
import time

import numpy as np
import psutil
import pytest
import yaml
from command_line import assert_one_line_error, finish, run_here, share_engine, start_process
from PIL import Image
from safetensors.numpy import load_file

from sysds_resnet import train
from sysds_resnet.metrics import read_metrics
from sysds_resnet.train import TrainSettings
from sysds_resnet.weights import read_metadata

STEPS, EPOCHS = 3, 3  # steps in an epoch; as few as leave room to stop in the middle of one
SETTINGS = (
    "--dataset synthetic --num-images 24 --num-classes 4 --model resnet18 --epochs 3 --batch-size 8 "
    "--micro-batch 4 --optimizer sgd --base-lr 0.05 --momentum 0.8 --label-smoothing 0.1 --seed 7 "
    "--precision double --heap 1g"
).split()
EPOCH_KEYS = "event epoch step train_loss val_loss val_top1 val_top5 lr images_per_s seconds".split()


@pytest.fixture
def shared(engine, monkeypatch):
    """Commands of this process use the session's engine."""
    share_engine(monkeypatch, engine)


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


def lines(folder):
    """The lines of metrics.jsonl without what depends on the clock."""
    texts = (folder / "metrics.jsonl").read_text().splitlines()
    timeless = [json.loads(text) for text in texts]
    for line in timeless:
        del line["images_per_s"], line["seconds"]
    return timeless


def assert_same_weights(left, right):
    left, right = load_file(left / "weights.safetensors"), load_file(right / "weights.safetensors")
    assert left.keys() == right.keys()
    for name in left:
        assert left[name].dtype == right[name].dtype == np.float64
        np.testing.assert_array_equal(left[name], right[name], err_msg=name)


# What a run leaves


def test_the_run_folder_holds_the_documented_files(run):
    names = {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()}
    assert names == {
        "config.yaml",
        "metrics.jsonl",
        "weights.safetensors",
        "curves.png",
        "checkpoints/step-00000006.safetensors",  # the newest two
        "checkpoints/step-00000009.safetensors",
    }


def test_metrics_have_a_line_for_each_step_and_epoch(run):
    kinds = [(line["event"], line["epoch"], line["step"]) for line in lines(run)]
    expected = []
    for epoch in range(1, EPOCHS + 1):
        expected += [("step", epoch, STEPS * (epoch - 1) + k) for k in range(1, STEPS + 1)]
        expected += [("epoch", epoch, STEPS * epoch)]
    assert kinds == expected


def test_epoch_lines_have_the_documented_keys_and_means(run):
    for text in (run / "metrics.jsonl").read_text().splitlines():
        line = json.loads(text)
        if line["event"] == "epoch":
            assert list(line) == EPOCH_KEYS
            assert line["images_per_s"] == pytest.approx(24 / line["seconds"])
    steps, epochs = read_metrics(run, "step"), read_metrics(run, "epoch")
    means = steps.groupby("epoch")["loss"].mean().to_numpy()
    np.testing.assert_allclose(epochs["train_loss"], means)
    assert epochs["train_loss"].iloc[-1] < epochs["train_loss"].iloc[0]
    assert epochs["val_top1"].between(0, 1).all() and (epochs["val_top5"] == 1).all()  # of 4 classes


def test_the_learning_rate_warms_up_and_decays(run):
    rates = read_metrics(run, "step")["lr"].to_numpy()
    peak = rates.argmax()
    assert 0 < rates[0] < rates[peak] == pytest.approx(0.05)
    assert (np.diff(rates[peak:]) < 0).all() and rates[-1] > 0


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
    assert set(config) == set(TrainSettings.model_fields) - {"config", "debug", "out", "resume"}
    assert config["base_lr"] == 0.05 and config["micro_batch"] == 4 and config["image_size"] == 32


def test_the_same_config_gives_the_same_weights(run, shared, capfd, tmp_path):
    outcome = run_here(capfd, "train", "--config", run / "config.yaml", "--out", tmp_path / "again")
    assert outcome.code == 0, outcome
    assert_same_weights(tmp_path / "again", run)
    assert lines(tmp_path / "again") == lines(run)
    shutil.rmtree(tmp_path / "again")


# Runs that end early


def wait_for_step(process, folder, step):
    """Wait until a run has logged a step."""
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        path = folder / "metrics.jsonl"
        if path.exists() and f'"step": {step},' in path.read_text():
            return
        time.sleep(0.02)
    raise AssertionError(f"no step {step}: {finish(process)}")


def the_jvm(process):
    [jvm] = [child for child in psutil.Process(process.pid).children() if "java" in child.name()]
    return jvm


def assert_gone(jvm):
    _, alive = psutil.wait_procs([jvm], timeout=10)
    assert not alive or jvm.status() == psutil.STATUS_ZOMBIE


def test_a_run_that_was_killed_and_interrupted_ends_as_if_it_had_not(run, shared, capfd, tmp_path):
    folder = tmp_path / "run"

    killed = start_process("train", *SETTINGS, "--out", folder)
    wait_for_step(killed, folder, STEPS + 1)
    jvm = the_jvm(killed)
    killed.send_signal(signal.SIGKILL)
    finish(killed)
    assert_gone(jvm)

    interrupted = start_process("train", "--resume", folder)
    wait_for_step(interrupted, folder, STEPS + 1)
    jvm = the_jvm(interrupted)
    interrupted.send_signal(signal.SIGINT)
    outcome = finish(interrupted)
    assert outcome.code == 0, outcome
    assert f", from step {STEPS}\n" in outcome.out, "the last whole epoch before the kill"
    assert f"continue with: python -m sysds_resnet.train --resume {folder}\n" in outcome.out
    assert "Traceback" not in outcome.err
    assert_gone(jvm)
    stopped_at = lines(folder)[-1]["step"]
    assert STEPS < stopped_at < 2 * STEPS, "in the middle of an epoch"
    assert not (folder / "weights.safetensors").exists()

    outcome = run_here(capfd, "train", "--resume", folder)
    assert outcome.code == 0, outcome
    assert f", from step {stopped_at}\n" in outcome.out
    assert_same_weights(folder, run)
    for resumed, undisturbed in zip(lines(folder), lines(run), strict=True):
        if resumed["event"] == "epoch" and resumed["epoch"] == 2:
            del resumed["train_loss"], undisturbed["train_loss"]  # the mean of the steps since the resumption
        assert resumed == undisturbed
    shutil.rmtree(folder)


def test_a_second_ctrl_c_ends_a_run_at_once(tmp_path):
    process = start_process("train", *SETTINGS, "--batch-size", 24, "--out", tmp_path / "run")
    deadline = time.monotonic() + 60
    while not (tmp_path / "run" / "config.yaml").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(1.5)  # the first step takes longer, for it is compiled
    jvm = the_jvm(process)
    process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    outcome = finish(process)
    assert outcome.code == 130, outcome
    assert outcome.err.splitlines()[-1] == "interrupted" and "Traceback" not in outcome.err
    assert_gone(jvm)


def test_a_finished_run_can_be_resumed_to_write_its_weights_again(run, copied, shared, capfd):
    (copied / "weights.safetensors").unlink()
    outcome = run_here(capfd, "train", "--resume", copied)
    assert (outcome.code, outcome.err) == (0, "")
    assert_same_weights(copied, run)
    assert lines(copied) == lines(run)


def test_a_truncated_checkpoint_is_named_and_the_one_before_works(run, copied, shared, capfd):
    newest = copied / "checkpoints" / "step-00000009.safetensors"
    whole = newest.read_bytes()
    newest.unlink()  # it is a link
    newest.write_bytes(whole[: len(whole) // 2])
    before = contents(copied)
    outcome = run_here(capfd, "train", "--resume", copied)
    assert_one_line_error(outcome, newest, "damaged checkpoint", "remove it to resume from the one before")
    assert contents(copied) == before
    newest.unlink()
    outcome = run_here(capfd, "train", "--resume", copied)
    assert outcome.code == 0 and ", from step 6\n" in outcome.out
    assert_same_weights(copied, run)
    assert lines(copied) == lines(run)


def test_a_half_written_last_line_of_metrics_is_dropped(run, copied, shared, capfd):
    path = copied / "metrics.jsonl"
    whole = path.read_text()
    path.write_text(whole[:-30])
    (copied / "checkpoints" / "step-00000009.safetensors").unlink()
    assert run_here(capfd, "train", "--resume", copied).code == 0
    assert lines(copied) == lines(run)


# Refusals


@pytest.mark.parametrize(
    ("flags", "found"),
    [
        (["--batch-size", "16"], "batch_size: found 16, expected 8 as in"),
        (["--seed", "8"], "seed: found 8, expected 7 as in"),
        (["--epochs", "4"], "epochs: found 4, expected 3 as in"),
    ],
)
def test_other_settings_are_refused_when_resuming(run, shared, capfd, flags, found):
    before = contents(run)
    outcome = run_here(capfd, "train", "--resume", run, *flags)
    assert_one_line_error(outcome, found, "step-00000009.safetensors", "resume with the run's own settings")
    assert contents(run) == before


def test_what_does_not_change_the_weights_may_differ_when_resuming(copied, shared, capfd):
    outcome = run_here(capfd, "train", "--resume", copied, "--heap", "2g", "--workers", "1", "--log-every", 2)
    assert outcome.code == 0, outcome


def test_a_folder_with_files_is_refused_for_a_new_run(run, shared, capfd):
    before = contents(run)
    outcome = run_here(capfd, "train", *SETTINGS, "--out", run)
    assert_one_line_error(outcome, f"{run}: found files there", "--out", f"--resume {run}")
    assert contents(run) == before


def test_resuming_needs_a_run(shared, capfd, tmp_path):
    outcome = run_here(capfd, "train", "--resume", tmp_path / "none")
    assert_one_line_error(outcome, tmp_path / "none" / "config.yaml", "found no readable file")


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
