"""The network in DML against the reference in PyTorch, both in FP64 with the same weights and images."""

import functools

import numpy as np
import pytest
import torch
from dml_resnet import DESCRIBE, FORWARD, GRADIENTS, PLAN, DmlResNet, tensors
from dml_runner import assert_close, pixel_major, to_engine
from narrow import STEM, narrow_resnet
from reference import STAGES, random_resnet
from torch.nn import functional

CLASSES = 10


# channels after the stem, depth, (N, height, width)
NARROW = [
    (STEM, 18, (4, 32, 32)),
    (STEM, 18, (2, 64, 64)),
    (STEM, 18, (2, 75, 53)),
    (STEM, 34, (4, 32, 32)),
    (STEM, 50, (2, 75, 53)),
]
WIDE = [
    (64, 50, (4, 32, 32)),
    (64, 18, (4, 32, 32)),
    (64, 18, (2, 64, 64)),
    (64, 18, (2, 75, 53)),
    (64, 50, (2, 64, 64)),
    (64, 50, (2, 75, 53)),
    (64, 50, (2, 224, 224)),
    (64, 34, (4, 32, 32)),
    (64, 101, (4, 32, 32)),
    (64, 152, (4, 32, 32)),
]


def long(cases):
    return [pytest.param(*case, marks=pytest.mark.long) for case in cases]


CASES = [*NARROW, *long(WIDE)]


def batch(size, channels=3, seed=0):
    """Images and labels."""
    generator = torch.Generator().manual_seed(seed)
    n, height, width = size
    images = torch.randn(n, channels, height, width, generator=generator, dtype=torch.float64)
    return images, torch.randint(0, CLASSES, (n,), generator=generator)


@pytest.fixture(scope="module")
def own_network(engine, wide_engine):
    """A function to a network with the weights of random_resnet, which a test may train."""
    engines = {STEM: engine, 64: wide_engine}
    return lambda stem, depth: DmlResNet(engines[stem], random_resnet(depth, CLASSES, stem=stem), depth)


@pytest.fixture(scope="module")
def network(own_network):
    """A function to such a network, the last one kept, which no test changes."""
    return functools.lru_cache(maxsize=1)(own_network)


def norm_error(actual, expected):
    assert actual.shape == expected.shape
    return np.linalg.norm(actual - expected) / np.linalg.norm(expected)


def assert_gradients(found, reference, tolerance):
    """Compare every parameter's gradient by its norm."""
    for name, parameter in reference.named_parameters():
        error = norm_error(found[name], to_engine(parameter.grad.numpy()))
        assert error <= tolerance, f"{name}: off by {error:.2e}, more than {tolerance:.0e}"


def assert_statistics(found, expected, tolerance=1e-9):
    """Compare running means and variances by their norms."""
    names = [name for name in expected if ".running_" in name]
    assert names
    for name in names:
        error = norm_error(found[name], expected[name])
        assert error <= tolerance, f"{name}: off by {error:.2e}, more than {tolerance:.0e}"


def batch_statistics(model):
    """Let a model's running statistics be those of its last batch alone."""
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    return model.train()


@pytest.mark.parametrize(("stem", "depth", "size"), CASES)
def test_logits_in_evaluation(network, stem, depth, size):
    reference = random_resnet(depth, CLASSES, stem=stem)
    images, _ = batch(size)
    with torch.no_grad():
        expected = reference(images)
    assert_close(network(stem, depth).logits(images), expected, 1e-9)


@pytest.mark.parametrize(("stem", "depth", "size"), CASES)
def test_gradients_and_statistics_in_training(network, stem, depth, size):
    reference = random_resnet(depth, CLASSES, stem=stem)
    images, labels = batch(size)
    found, metrics = network(stem, depth).gradients(images, labels)
    logits = batch_statistics(reference)(images)
    loss = functional.cross_entropy(logits, labels)
    loss.backward()
    assert_close(metrics[0], loss.item() * len(images), 1e-9)
    ranking = logits.argsort(dim=1, descending=True)
    for k, hits in ((1, metrics[1]), (5, metrics[2])):
        assert hits == (ranking[:, :k] == labels[:, None]).any(dim=1).sum().item()
    assert metrics[3] == len(images)
    assert_gradients(found, reference, 1e-8)
    assert_statistics(found, tensors(reference))


def test_gradients_with_label_smoothing_and_one_channel(engine):
    reference = narrow_resnet(18, CLASSES, channels=1)
    images, labels = batch((4, 40, 33), channels=1)
    found, metrics = DmlResNet(engine, reference, 18).gradients(images, labels, label_smoothing=0.1)
    loss = functional.cross_entropy(reference.train()(images), labels, label_smoothing=0.1)
    loss.backward()
    assert_close(metrics[0], loss.item() * len(images), 1e-9)
    assert_gradients(found, reference, 1e-8)


def test_whole_network_in_one_program(quick_dml):
    """Registry, plan, forward and backward."""
    check_whole_network(quick_dml)


@pytest.mark.long
def test_whole_network_in_each_way_that_programs_run(dml):
    check_whole_network(dml)


def check_whole_network(dml):
    reference = random_resnet(18, CLASSES)
    images, labels = batch((4, 32, 32))
    weights = tensors(reference)
    with torch.no_grad():
        expected = reference(images)
    functional.cross_entropy(reference.train()(images), labels).backward()
    model = dml.engine.make_list([dml.engine.from_numpy(array) for array in weights.values()])
    program = DESCRIBE + PLAN + FORWARD + GRADIENTS
    names = [name for name, _ in reference.named_parameters()]
    places = [list(weights).index(name) + 1 for name in names]
    program += "".join(f"g{t} = as.matrix(grads[{t}])\n" for t in places)
    logits, *found = dml(
        program,
        "logits " + " ".join(f"g{t}" for t in places),
        X=pixel_major(images),
        y=labels.numpy()[:, None] + 1.0,
        model=model,
        depth=18,
        channels=3,
        num_classes=CLASSES,
        N=4,
        H=32,
        W=32,
        micro_batch=4,
        label_smoothing=0.0,
        eps=1e-5,
    )
    assert_close(logits, expected, 1e-9)
    assert_gradients(dict(zip(names, found, strict=True)), reference, 1e-8)


@pytest.mark.parametrize(
    ("stem", "depth"), [(STEM, 18), *long([(STEM, 50), *((64, depth) for depth in STAGES)])]
)
def test_statistics_and_weights_after_three_steps(own_network, network, stem, depth):
    network.cache_clear()  # the heap has no room for another ResNet-152
    reference = random_resnet(depth, CLASSES, stem=stem)
    network = own_network(stem, depth)
    optimizer = torch.optim.SGD(reference.train().parameters(), momentum=0.9)
    for seed in range(3):
        images, labels = batch((4, 48, 48) if depth == 18 else (8, 32, 32), seed=seed)
        loss = functional.cross_entropy(reference(images), labels)
        optimizer.param_groups[0]["lr"] = lr = 0.01 * (seed + 1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found = network.step(images, labels, lr, "sgd", weight_decay=0.0)
        assert_close(found, loss.item(), 1e-9)
    found, expected = network.named_arrays(network.model), tensors(reference)
    assert_statistics(found, expected)
    for name, array in expected.items():
        assert norm_error(found[name], array) <= 1e-8, name


@pytest.mark.parametrize("micro_batch", [2, pytest.param(8, marks=pytest.mark.long)])
def test_micro_batches_add_up(engine, micro_batch):
    """A batch's gradient is the sum over micro-batches, each normalized with its own statistics."""
    reference = narrow_resnet(18, CLASSES)
    images, labels = batch((8, 48, 48))
    network = DmlResNet(engine, reference, 18)
    before = tensors(reference)
    found, metrics = network.gradients(images, labels, micro_batch)
    batch_statistics(reference)
    statistics, loss_sum = [], 0.0
    for i in range(0, 8, micro_batch):
        part = slice(i, i + micro_batch)
        loss = functional.cross_entropy(reference(images[part]), labels[part], reduction="sum")
        (loss / 8).backward()
        loss_sum += loss.item()
        statistics.append(tensors(reference))
    mean = {name: np.mean([part[name] for part in statistics], axis=0) for name in before}
    assert_close(metrics[0], loss_sum, 1e-9)
    assert metrics[3] == 8
    assert_gradients(found, reference, 1e-8)
    assert_statistics(found, mean)
    network.step(images, labels, 0.1, "lars", micro_batch=micro_batch)
    after = network.named_arrays(network.model)
    assert_statistics(after, {name: 0.9 * before[name] + 0.1 * mean[name] for name in before})
