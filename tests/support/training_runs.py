"""A small training run by the train command, and whether two runs ended the same."""

import json

import numpy as np
from safetensors.numpy import load_file

from sysds_resnet.network.weights.files import read_metadata

SETTINGS = [
    *["--dataset", "synthetic", "--num-images", "16", "--num-classes", "4", "--model", "resnet18"],
    *["--epochs", "2", "--batch-size", "8", "--micro-batch", "4", "--optimizer", "sgd", "--base-lr", "0.01"],
    *["--momentum", "0.8", "--label-smoothing", "0.1", "--mixup", "0.2", "--cutmix", "1", "--seed", "7"],
    *["--precision", "double", "--heap", "1g"],
]
"""Flags of a run of two epochs of two steps each."""


def lines(folder):
    """The lines of metrics.jsonl without what depends on the clock."""
    texts = (folder / "metrics.jsonl").read_text().splitlines()
    found = [json.loads(text) for text in texts]
    timed = ("time", "seconds", "straggler", "executors")
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
