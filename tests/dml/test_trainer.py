"""The parts of a training step and of an evaluation in DML."""

import gc
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from dml_resnet import DmlResNet
from dml_runner import assert_close
from narrow import narrow_resnet
from reference import random_resnet
from torch.nn import functional

from sysds_resnet import ResNet
from sysds_resnet.engine import Engine
from sysds_resnet.errors import UserError

TRAINER = 'source("dml/training/gradients.dml") as trainer\n'
EVALUATE = f"""{TRAINER}
source("dml/network/folding.dml") as folding
folded = folding::fold(model, eps)
[metrics, logits] = trainer::evaluate(X, y, folded, plan)
"""


@pytest.fixture(scope="module")
def reference():
    return narrow_resnet(18, 10)


@pytest.fixture
def network(engine, reference):
    return DmlResNet(engine, reference, 18)


def batch(n, size=32):
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(n, 3, size, size, generator=generator, dtype=torch.float64)
    return images, torch.randint(0, 10, (n,), generator=generator)


def test_score_counts_hits_and_sums_the_loss(dml):
    rng = np.random.default_rng(0)
    logits, labels = rng.standard_normal((50, 10)), rng.integers(0, 10, 50)
    tensor = torch.from_numpy(logits)
    metrics = dml(
        TRAINER + "metrics = trainer::score(logits, log_p, Y, y)\n",
        "metrics",
        logits=logits,
        log_p=tensor.log_softmax(dim=1).numpy(),
        Y=np.eye(10)[labels],
        y=labels[:, None] + 1.0,
    )
    ranking = np.argsort(-logits, axis=1)
    hits = [(ranking[:, :k] == labels[:, None]).any(axis=1).sum() for k in (1, 5)]
    loss = functional.cross_entropy(tensor, torch.from_numpy(labels), reduction="sum").item()
    assert_close(metrics, [[loss, *hits, 50]])


@pytest.mark.parametrize("padding", [0, 3])
def test_evaluation_ignores_padding(network, reference, padding):
    images, labels = batch(5)
    with torch.no_grad():
        expected = reference(images)
    padded = torch.cat([images, torch.randn(padding, 3, 32, 32, dtype=torch.float64)])
    inputs = network.common(padded) | {"y": labels.numpy()[:, None] + 1.0}
    results = network.engine.run(EVALUATE, inputs, {"metrics": "matrix", "logits": "matrix"})
    assert_close(network.engine.to_numpy(results["logits"]), expected, 1e-9)
    loss = functional.cross_entropy(expected, labels, reduction="sum").item()
    metrics = network.engine.to_numpy(results["metrics"])[0]
    assert_close(metrics[0], loss, 1e-9)
    assert metrics[1] == (expected.argmax(dim=1) == labels).sum().item()
    assert metrics[3] == 5


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_loss_that_is_no_number_is_seen_in_the_metrics_and_the_norm(network, value):
    images, labels = batch(4)
    images[1, 0, 3, 3] = value
    gradients, metrics = network.gradients(images, labels)
    assert np.isnan(metrics[0]) and np.isnan(gradients["fc.weight"]).any()


def test_single_value_per_channel_stops_the_step(network):
    """One image of 32 x 32 leaves one pixel in the last stage, which has no variance; as in PyTorch."""
    images, labels = batch(1)
    with pytest.raises(UserError, match="micro-batch: one image of this size leaves a single pixel"):
        network.gradients(images, labels)


def test_runs_repeat_bit_by_bit(network):
    images, labels = batch(8, size=64)
    first, _ = network.gradients(images, labels)
    again, _ = network.gradients(images, labels)
    assert all(np.array_equal(first[name], again[name]) for name in first)


@pytest.mark.parametrize(
    "options",
    [
        {},
        pytest.param({"channel_major": True, "fused": False}, marks=pytest.mark.long),
        pytest.param({"precision": "single"}, marks=pytest.mark.long),
    ],
    ids=str,
)
def test_workers_score_what_one_scores(options, engine):
    """Ten images by two workers, two at a time: in the last round one has nothing to do."""
    own = {"precision": "double", "heap": 2 * 2**30} | options
    images = np.random.default_rng(0).integers(0, 256, (10, 40, 36, 3), dtype=np.uint8)
    found = []
    for workers in (1, 2):
        usual = workers == 1 and not options
        with nullcontext(engine) if usual else Engine(**own, workers=workers) as used:
            model = ResNet(18, 10, seed=3, engine=used)
            found += [model.logits(images, batch_size=4) for _ in range(workers)]
    expected, scores, again = found
    assert_close(scores, expected, 1e-12 if own["precision"] == "double" else 1e-5)
    assert np.array_equal(again, scores)


@pytest.mark.long
def test_old_models_leave_the_jvm(wide_engine):
    """Python's collector of cycles comes by too seldom to wait for: it sees small objects only."""
    network = DmlResNet(wide_engine, random_resnet(18, 10), 18)
    jvm = wide_engine._jvm
    runtime = jvm.java.lang.Runtime.getRuntime()

    def megabytes():
        jvm.java.lang.System.gc()
        return (runtime.totalMemory() - runtime.freeMemory()) / 2**20

    images, labels = batch(4)
    gc.collect()
    gc.disable()
    try:
        used = []
        for _ in range(4):
            network.step(images, labels, 0.01, "sgd")
            used.append(megabytes())
    finally:
        gc.enable()
    assert used[3] - used[1] < 40, (
        f"two steps left {used[3] - used[1]:.0f} MiB; weights and velocities have 171"
    )
