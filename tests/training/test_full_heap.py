"""Runs that are short of memory: the micro-batch is halved, and what cannot be helped is one line."""

import json
import re
import shutil

import pytest
import yaml
from command_line import run_here
from training_runs import SETTINGS, assert_same_end, dying

from sysds_resnet.errors import OutOfMemory
from sysds_resnet.training import trainer as trainer_module
from sysds_resnet.training.state import State


@pytest.mark.long
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


def test_memory_that_runs_out_before_a_run_has_begun_is_what_is_said(shared, capfd, monkeypatch, tmp_path):
    def full(*_):
        raise OutOfMemory("JVM: found its heap full")

    monkeypatch.setattr(trainer_module, "starting_model", full)
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
@pytest.mark.usefixtures("wide")  # networks of an eighth of the channels would fit
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
