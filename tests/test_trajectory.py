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


@pytest.mark.parametrize("depth", [18, pytest.param(50, marks=pytest.mark.long)])
def test_lars_trajectory_is_pytorchs(engine, depth):
    reference = random_resnet(depth, CLASSES)
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
        print(step, loss.item(), abs(found - loss.item())/loss.item())
        assert abs(found - loss.item()) <= 1e-7 * abs(loss.item()), f"step {step}"
        first = first or loss.item()
    assert loss.item() < 0.5 * first, "the loop must have learned, or it shows little"


# Measured on ResNet-50 at 64 x 64 with a batch of 8: logits MEASURED, gradients MEASURED at most; the bounds
# are three times that.
LOGITS_BOUND, GRADIENT_BOUND = 1e-5, 1e-3


@pytest.mark.parametrize("depth", [18, pytest.param(50, marks=pytest.mark.long)])
def test_single_precision_stays_near_double(engine, engine_single, depth):
    reference = random_resnet(depth, CLASSES)
    images, labels = batches(1, size=64)[0]
    double, single = DmlResNet(engine, reference, depth), DmlResNet(engine_single, reference, depth)
    expected, found = double.logits(images), single.logits(images)
    distance = relative_distance(found, expected)
    print(f"logits {distance:.2e}")
    assert distance <= LOGITS_BOUND
    if engine_single.blas:
        assert distance > 1e-9, "the multiplies were not in single precision"
    expected, _ = double.gradients(images, labels)
    found, _ = single.gradients(images, labels)
    distances = {name: relative_distance(found[name], expected[name]) for name in expected}
    name = max(distances, key=distances.get)
    print(f"{name} {distances[name]:.2e}", np.median(list(distances.values())))
    assert distances[name] <= GRADIENT_BOUND, name


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
