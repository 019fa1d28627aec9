"""Twenty steps of LARS against the same loop in PyTorch, and single precision against double."""

import numpy as np
import pytest
import torch
from dml_resnet import DmlResNet
from dml_runner import to_engine
from reference import random_resnet
from torch.nn import functional

STEPS, WARMUP, BATCH, CLASSES = 20, 5, 8, 10
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


def test_lars_trajectory_is_pytorchs(engine):
    reference = random_resnet(50, CLASSES)
    network = DmlResNet(engine, reference, 50)
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
    assert loss.item() < 0.6 * first, "the loop must have learned, or it shows little"


# Relative distances of single from double precision at 64 x 64 and batch 8, six batches each. Measured:
# logits at most 4.3e-7 (ResNet-18) and 1.0e-6 (50), PyTorch in FP32 3.7e-7 and 5.4e-7; gradients 1.4e-6
# unless a ReLU or a maximum falls the other way, as it does in some batches, and then at most 5e-3,
# PyTorch's the same. The bounds are three times that.
LOGITS_BOUND, SMOOTH_GRADIENT_BOUND, GRADIENT_BOUND = 3e-6, 5e-6, 1.5e-2


@pytest.mark.parametrize("depth", [18, pytest.param(50, marks=pytest.mark.long)])
def test_single_precision_stays_near_double(engine, engine_single, depth):
    reference = random_resnet(depth, CLASSES)
    double, single = DmlResNet(engine, reference, depth), DmlResNet(engine_single, reference, depth)
    distances = []
    for images, labels in batches(3, size=64):
        found, expected = single.logits(images), double.logits(images)
        assert relative_distance(found, expected) <= LOGITS_BOUND
        if engine_single.blas:
            assert relative_distance(found, expected) > 1e-9, "the multiplies were not in single precision"
        (found, _), (expected, _) = (network.gradients(images, labels) for network in (single, double))
        found, expected = (np.concatenate([g.reshape(-1) for g in d.values()]) for d in (found, expected))
        distances.append(relative_distance(found, expected))
    assert max(distances) <= GRADIENT_BOUND
    if depth == 18:
        assert min(distances) <= SMOOTH_GRADIENT_BOUND


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
