"""The network by the engine's own operators, channel by channel: what runs on GPUs, here on the CPU."""

import numpy as np
import pytest
import torch
from narrow import narrow_resnet
from reference import arrays, random_resnet, relative_error
from torch.nn import functional

from sysds_resnet import ResNet
from sysds_resnet.network.arrays import pack
from sysds_resnet.train import TrainSettings
from sysds_resnet.training.gradients import compute_gradients
from sysds_resnet.training.state import State


@pytest.fixture
def channel_major(engine, monkeypatch):
    """The session's engine, as networks see one that is channel-major."""
    monkeypatch.setattr(engine, "channel_major", True)
    return engine


def batch(n, height=40, width=36, classes=10):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (n, height, width, 3), dtype=np.uint8), rng.integers(0, classes, n)


def preprocessed(model, images):
    """What PyTorch takes: (N, C, H, W), normalized."""
    return torch.from_numpy(((images - model.mean) / model.std).transpose(0, 3, 1, 2).copy())


def settings(**changes):
    return TrainSettings(optimizer="lars", base_lr=0.5, label_smoothing=0.1, **changes)


@pytest.mark.parametrize("depth", [18, 50])
def test_logits_gradients_and_statistics_are_pytorchs(channel_major, depth):
    check_against_pytorch(channel_major, narrow_resnet(depth, 10))


@pytest.mark.long
@pytest.mark.usefixtures("wide")
@pytest.mark.parametrize("depth", [18, 50])
def test_those_of_the_real_networks_are_pytorchs(wide_engine, monkeypatch, depth):
    monkeypatch.setattr(wide_engine, "channel_major", True)
    check_against_pytorch(wide_engine, random_resnet(depth, 10))


def check_against_pytorch(channel_major, reference):
    model = ResNet.from_state_dict(arrays(reference), channel_major)
    images, labels = batch(6)
    with torch.no_grad():
        expected = reference.eval()(preprocessed(model, images)).numpy()
    assert np.abs(model.logits(images) - expected).max() < 1e-10 * np.abs(expected).max()
    with torch.no_grad():
        features = reference.features(preprocessed(model, images)).numpy()
    assert np.abs(model.features(images, batch_size=4) - features).max() < 1e-10 * np.abs(features).max()
    before = {name: value.clone() for name, value in reference.state_dict().items()}
    loss = functional.cross_entropy(
        reference.train()(preprocessed(model, images)), torch.from_numpy(labels), label_smoothing=0.1
    )
    loss.backward()
    optimizer = settings(micro_batch=6).make_optimizer(1)
    gradients, metrics = compute_gradients(model, images, labels, optimizer)
    found = model.network.from_engine(gradients)
    expected = {name: p.grad.numpy() for name, p in reference.named_parameters()}
    for name, after in reference.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            expected[name] = ((after - 0.9 * before[name]) / 0.1).numpy()  # of this batch
    assert abs(metrics[0] / 6 - loss.item()) < 1e-12
    assert relative_error(found, expected) < 1e-9


@pytest.mark.parametrize("changes", [{}, {"micro_batch": 3}, {"frozen": ("stem", "layer1")}])
def test_steps_end_with_the_weights_of_the_pixel_major_network(engine, monkeypatch, changes):
    images, labels = batch(6)
    images[:, :20] = 0  # equal values in the pool's windows
    ends = []
    for channel_major in (False, True):
        monkeypatch.setattr(engine, "channel_major", channel_major)
        state = State.fresh(ResNet(18, 10, seed=3, engine=engine))
        run = settings(micro_batch=changes.get("micro_batch", 6))
        frozen = state.model.network.units_of(changes.get("frozen", ()))
        optimizer = run.make_optimizer(1, frozen)
        for _ in range(2):
            state.update(images, labels, optimizer)
        ends.append((state.model.state_dict(), state.model.evaluate(images, labels)))
    assert relative_error(ends[1][0], ends[0][0]) < 1e-10
    assert ends[1][1]["loss"] == pytest.approx(ends[0][1]["loss"], rel=1e-9)


def test_initial_weights_do_not_depend_on_the_layout(engine, monkeypatch):
    ends = []
    for channel_major in (False, True):
        monkeypatch.setattr(engine, "channel_major", channel_major)
        ends.append(ResNet(50, 10, seed=3, engine=engine).state_dict())
    assert all(np.array_equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_weights_come_out_as_they_went_in(channel_major):
    weights = {n: a for n, a in arrays(narrow_resnet(50, 7)).items() if not n.endswith("tracked")}
    found = ResNet.from_state_dict(weights, channel_major).state_dict()
    assert all(np.array_equal(found[name], weights[name]) for name in weights)


def test_images_sent_ahead_give_the_same_step(channel_major):
    images, labels = batch(6)
    optimizer = settings(micro_batch=3).make_optimizer(1)
    ends = []
    for ahead in (False, True):
        state = State.fresh(ResNet(18, 10, seed=3, engine=channel_major))
        state.update(state.send(images, optimizer) if ahead else images, labels, optimizer)
        ends.append(state.model.state_dict())
    assert all(np.array_equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_packed_pixels_are_the_channels(channel_major):
    images, _ = batch(3)
    program = 'source("dml/training/data.dml") as data\nX = data::unpack(P)\n'
    found = channel_major.run(program, {"P": pack(images)}, {"X": "matrix"})["X"]
    expected = images.transpose(0, 3, 1, 2).reshape(3, -1)
    assert np.array_equal(channel_major.to_numpy(found), expected)
