"""The GPU backend, on GPUs in software (software_gpus.py): what it computes, where, and what it frees and keeps."""

import gc

import numpy as np
import pytest
import software_gpus
import yaml
from command_line import assert_one_line_error, run_here
from safetensors.numpy import load_file

from sysds_resnet.checkpoint import Checkpoints
from sysds_resnet.engine import Engine
from sysds_resnet.engine import gpu as gpu_module
from sysds_resnet.errors import NotFinite, OutOfMemory
from sysds_resnet.model import ResNet
from sysds_resnet.state import State
from sysds_resnet.train import TrainSettings

GIB = 2**30
# What a step may run beside the GPU: scalars, lists, variables, and the loss's look at its labels.
ON_THE_CPU = set()


@pytest.fixture(scope="module")
def libraries(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gpus")
    software_gpus.build(folder)
    return folder


@pytest.fixture(scope="module", params=[1, 2], ids=["a_gpu", "two_gpus"])
def gpus(request, libraries):
    with (
        software_gpus.installed(libraries, request.param),
        Engine("double", heap=GIB, gpus=range(request.param)) as engine,
    ):
        yield engine


@pytest.fixture
def cpu(engine, monkeypatch, gpus):
    """The session's engine, which computes the same layout."""
    monkeypatch.setattr(engine, "channel_major", True)
    monkeypatch.setattr(engine, "workers", gpus.workers)
    return engine


def batch(n, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8), rng.integers(0, 10, n)


def relative_error(found, expected):
    """The largest of all tensors."""
    norms = {name: np.linalg.norm(value) or 1.0 for name, value in expected.items()}
    return max(np.linalg.norm(found[name] - expected[name]) / norms[name] for name in expected)


def settings(**changes):
    return TrainSettings(base_lr=0.5, micro_batch=4, **changes)


def test_steps_validation_and_averages_are_those_of_the_cpu(gpus, cpu):
    optimizer = settings(ema_decay=0.5, label_smoothing=0.1).make_optimizer(10)

    def run(engine):
        state = State.fresh(ResNet(18, 10, seed=3, engine=engine))
        losses = []
        for seed in range(3):
            state.update(*batch(8, seed), optimizer)
            trained, state.model.weights = state.model.weights, state.averaged
            losses.append(state.model.evaluate(*batch(4))["loss"])
            state.model.weights = trained
            losses.append(state.model.evaluate(*batch(4))["loss"])
        network = state.model.network
        return losses, state.model.state_dict(), *map(network.from_engine, (state.velocities, state.average))

    (losses, *found), (expected_losses, *expected) = run(gpus), run(cpu)
    assert losses == pytest.approx(expected_losses, rel=1e-9)
    assert max(map(relative_error, found, expected)) < 1e-9
