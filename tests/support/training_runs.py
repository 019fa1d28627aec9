"""A small training run by the train command, what it may meet, and whether two runs ended the same."""

import json

import numpy as np
import pytest
from command_line import share_engine
from safetensors.numpy import load_file

from sysds_resnet import train
from sysds_resnet.network.weights.files import read_metadata
from sysds_resnet.training.run_folder import config_text, run_folder, write_texts
from sysds_resnet.training.settings import TrainSettings
from sysds_resnet.training.state import State

SETTINGS = [
    *["--dataset", "synthetic", "--num-images", "16", "--num-classes", "4", "--model", "resnet18"],
    *["--epochs", "2", "--batch-size", "8", "--micro-batch", "4", "--optimizer", "sgd", "--base-lr", "0.01"],
    *["--momentum", "0.8", "--label-smoothing", "0.1", "--mixup", "0.2", "--cutmix", "1", "--seed", "7"],
    *["--precision", "double", "--heap", "1g"],
]
"""Flags of a run of two epochs of two steps each."""
STEPS, EPOCHS = 2, 2  # steps in an epoch; as few as leave room to stop in the middle of one


def train_undisturbed(engine, folder):
    """That run, by an engine of this process."""
    with pytest.MonkeyPatch.context() as patch:
        share_engine(patch, engine)
        assert train.main([*SETTINGS, "--out", str(folder)]) == 0


def started(folder, **values):
    """A folder of a run that has begun, and ended."""
    with run_folder(TrainSettings(out=folder), pytest.fail) as made:
        assert made == folder
        write_texts({folder / "config.yaml": config_text(TrainSettings(**values))})
    return folder


def dying(times, error, step=3):
    """A step in the place of `State.update` whose JVM ends some times at one step."""
    update, left = State.update, [error] * times

    def step_or_death(state, *arguments):
        if state.progress.step == step - 1 and left:
            raise left.pop()
        return update(state, *arguments)

    return step_or_death


def lines(folder):
    """The lines of metrics.jsonl without what depends on the clock."""
    texts = (folder / "metrics.jsonl").read_text().splitlines()
    found = [json.loads(text) for text in texts]
    timed = ("time", "seconds", "straggler", "slowest", "executors")
    return [
        {name: value for name, value in line.items() if name not in timed and not name.endswith("_s")}
        for line in found
        if line["event"] in ("step", "epoch")
    ]


def assert_same_end(left, right):
    """Check that two runs ended with the same files, but for what depends on the clock."""
    assert lines(left) == lines(right)
    assert_same_weights(left, right)
    assert_same_weights(left, right, "best.safetensors")


def assert_same_weights(left, right, file="weights.safetensors"):
    assert read_metadata(left / file) == read_metadata(right / file)
    left, right = load_file(left / file), load_file(right / file)
    assert left.keys() == right.keys()
    for name in left:
        assert left[name].dtype == right[name].dtype == np.float64
        np.testing.assert_array_equal(left[name], right[name], err_msg=name)
