"""Fourteen steps of LARS against the same loop in PyTorch, and single precision against double."""

import numpy as np
import pytest
import torch
from dml_resnet import DmlResNet
from dml_runner import to_engine
from narrow import STEM, wide_networks
from reference import random_resnet
from torch.nn import functional

from sysds_resnet.engine import Engine

STEPS, WARMUP, BATCH, CLASSES = 14, 4, 8, 10
BASE_LR = 0.3  # at 1.0 PyTorch's own losses move by 1e-6 when one weight moves by 1e-14
MOMENTUM, WEIGHT_DECAY, TRUST_COEFF = 0.9, 1e-4, 0.001


def batches(count, size=32):
    """Images of a pattern for each class, and noise."""
    generator = torch.Generator().manual_seed(0)
    patterns = torch.randn(CLASSES, 3, size, size, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, CLASSES, (count, BATCH), generator=generator)
    noise = torch.randn(count, BATCH, 3, size, size, generator=generator, dtype=torch.float64)
    return list(zip(patterns[labels] + noise, labels, strict=True))


def learning_rate(step):
    if step < WARMUP:
        return BASE_LR * (step + 1) / (WARMUP + 1)
    return 1e-4 + (BASE_LR - 1e-4) * (1 - (step - WARMUP) / (STEPS - WARMUP)) ** 2


def lars_step(model, velocities, lr):
    """MLPerf's LARS: filters and the final weight are scaled and decayed, everything else is neither."""
    with torch.no_grad():
        for name, w in model.named_parameters():
            g, v = w.grad, velocities.setdefault(name, torch.zeros_like(w))
            if w.ndim > 1:
                ratio = TRUST_COEFF * w.norm() / (g.norm() + WEIGHT_DECAY * w.norm())
                g = ratio * (g + WEIGHT_DECAY * w)
            v.mul_(MOMENTUM).add_(lr * g)
            w.sub_(v)


def relative_distance(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


@pytest.mark.parametrize(
    ("stem", "depth", "learned"),
    [(STEM, 18, 0.7), *(pytest.param(64, depth, 0.6, marks=pytest.mark.long) for depth in (18, 50))],
)
def test_lars_trajectory_is_pytorchs(request, stem, depth, learned):
    reference = random_resnet(depth, CLASSES, stem=stem)
    engine = request.getfixturevalue("engine" if stem == STEM else "wide_engine")
    network = DmlResNet(engine, reference, depth)
    reference.train()
    velocities, first = {}, None
    data = batches(4)
    for step in range(STEPS):
        images, labels = data[step % len(data)]
        loss = functional.cross_entropy(reference(images), labels)
        reference.zero_grad()
        loss.backward()
        lars_step(reference, velocities, learning_rate(step))
        found = network.step(images, labels, learning_rate(step), "lars", MOMENTUM, WEIGHT_DECAY)
        assert abs(found - loss.item()) <= 1e-7 * abs(loss.item()), f"step {step}"
        first = first or loss.item()
    assert loss.item() < learned * first, "the loop must have learned, or it shows little"


# Relative distances from double precision at 64 x 64 and batch 8, measured over six batches. Logits: at most
# 4.7e-7 (ResNet-18) and 1.2e-6 (50) in FP32 by OpenBLAS, 3.9e-7 and 6.9e-7 by oneDNN, 3.6e-3 and 4.2e-3 in
# bf16. Gradients in FP32: 6.4e-7 for ResNet-18, unless a ReLU or a maximum falls the other way, as it does in
# some batches, and then at most 3e-3; in bf16 2.4e-2 and 1.0e-1 (PyTorch's autocast to bf16: 1.9e-1 and
# 5.4e-1). The bounds are three times that or less. Each is (logits, gradients in the best batch, gradients).
BOUNDS = {"single": (3e-6, 5e-6, 1.5e-2), "bf16": (1.2e-2, 7e-2, 2e-1)}
ENGINES = {
    "single": {"precision": "single"},
    "single_openblas": {"precision": "single", "blas": "openblas"},
    "bf16": {"precision": "bf16"},
}


@pytest.mark.long
@pytest.mark.parametrize("depth", [18, 50])
@pytest.mark.parametrize("name", ENGINES)
def test_other_precisions_stay_near_double(wide_engine, name, depth):
    reference = random_resnet(depth, CLASSES)
    with wide_networks(), Engine(**ENGINES[name], heap=3 * 2**29) as other:
        precision = other.multiply.precision
        logits_bound, smooth_bound, bound = BOUNDS.get(precision, (1e-9, 1e-9, 1e-9))
        networks = [DmlResNet(e, reference, depth) for e in (other, wide_engine)]
        distances = []
        for images, labels in batches(3, size=64):
            found, expected = (network.logits(images) for network in networks)
            assert relative_distance(found, expected) <= logits_bound
            if precision != "double":
                assert relative_distance(found, expected) > 1e-9, "the multiplies were in double precision"
            gradients = [network.gradients(images, labels)[0] for network in networks]
            flat = [np.concatenate([g.reshape(-1) for g in part.values()]) for part in gradients]
            distances.append(relative_distance(*flat))
    assert max(distances) <= bound
    if depth == 18:
        assert min(distances) <= smooth_bound


@pytest.mark.long
def test_single_precision_keeps_weights_in_double(engine_single):
    """An update smaller than a float's resolution is not lost."""
    reference = random_resnet(18, CLASSES)
    network = DmlResNet(engine_single, reference, 18)
    images, labels = batches(1)[0]
    network.step(images, labels, 1e-12, "sgd", 0.0, 0.0)
    before = to_engine(reference.fc.weight.detach().numpy())
    after = network.named_arrays(network.model)["fc.weight"]
    moved = np.abs(after - before)
    assert 0 < moved.max() < 1e-11
