"""What the package frees and keeps on a GPU, with the JVM's heap in the place of the GPU's memory.

The engine's cache of matrices is on, as it is with GPUs: what is freed too early has no values any more, and
reading it fails.
"""

import gc

import numpy as np
import pytest
from safetensors.numpy import load_file

from sysds_resnet.checkpoint import Checkpoints
from sysds_resnet.engine import Engine
from sysds_resnet.engine.gpu import Gpus
from sysds_resnet.errors import NotFinite
from sysds_resnet.model import ResNet
from sysds_resnet.state import State
from sysds_resnet.train import TrainSettings

GIB = 2**30


class HostMemory(Gpus):
    """Everything that `Gpus` does but what needs a GPU."""

    name = "the heap"

    def __init__(self, gateway, folder):
        self._gateway, self._jvm = gateway, gateway.jvm
        self._sysds = self._jvm.org.apache.sysds
        self._config = self._sysds.conf.DMLConfig()
        self._config.setTextValue("sysds.localtmpdir", str(folder))
        self._contexts = self._jvm.java.util.Collections.singletonList(None)
        self._new_sweep = lambda _: type("NoSweep", (), {"sweep": lambda self, kept: None})()

    def upload(self, matrices, everywhere=False):
        pass

    def _new_context(self, variables, program):
        factory = self._sysds.runtime.controlprogram.context.ExecutionContextFactory
        return factory.createContext(variables, program)

    def _set_static(self, name, value):
        pass


@pytest.fixture(scope="module", params=[1, 2], ids=["a_gpu", "two_gpus"])
def workers(request):
    return request.param


@pytest.fixture(scope="module")
def engine(tmp_path_factory, workers):
    with Engine("double", heap=2 * GIB, fused=False, channel_major=True, workers=workers) as engine:
        engine._gpus = HostMemory(engine._gateway, tmp_path_factory.mktemp("evicted"))
        engine._gpus.start_caching()
        yield engine


@pytest.fixture(scope="module")
def reference(workers):
    with Engine("double", heap=GIB, fused=False, channel_major=True, workers=workers) as engine:
        yield engine


@pytest.fixture(autouse=True)
def as_on_a_gpu(engine, reference, monkeypatch):
    for each in (engine, reference):
        monkeypatch.setattr(each, "gpu", True)


def batch(n, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8), rng.integers(0, 10, n)


def same(found, expected):
    return all(np.array_equal(found[name], expected[name]) for name in expected)


def both(engine, reference, run):
    """What a function gives for a fresh state on each engine."""
    return [run(State.fresh(ResNet(18, 10, seed=3, engine=each))) for each in (engine, reference)]


def test_steps_validation_and_averages_end_as_without_freeing(engine, reference):
    settings = TrainSettings(base_lr=0.5, micro_batch=4, ema_decay=0.5)
    optimizer = settings.make_optimizer(10)

    def run(state):
        losses = []
        for seed in range(3):
            state.update(*batch(8, seed), optimizer)
            trained, state.model.weights = state.model.weights, state.averaged
            losses.append(state.model.evaluate(*batch(4))["loss"])
            state.model.weights = trained
            losses.append(state.model.evaluate(*batch(4))["loss"])
        network = state.model.network
        return losses, state.model.state_dict(), *map(network.from_engine, (state.velocities, state.average))

    (losses, *found), (expected_losses, *expected) = both(engine, reference, run)
    assert losses == expected_losses
    assert all(map(same, found, expected))


def test_a_step_that_is_not_finite_leaves_the_state(engine, reference):
    optimizer = TrainSettings(base_lr=0.5, micro_batch=4).make_optimizer(10)
    images, labels = batch(4)

    def run(state):
        state.update(images, labels, optimizer)
        before = state.model.state_dict()
        gradients, metrics = state._gradients(images, labels, optimizer)
        with pytest.raises(NotFinite):
            state.apply(gradients, metrics * np.nan, optimizer)
        assert same(state.model.state_dict(), before)
        state.update(images, labels, optimizer)
        return state.model.state_dict()

    assert same(*both(engine, reference, run))


def test_checkpoints_hold_the_state_while_training_goes_on(engine, reference, tmp_path):
    optimizer = TrainSettings(base_lr=0.5, micro_batch=4).make_optimizer(10)

    def run(state):
        folder = tmp_path / str(state.model.engine is engine)
        with Checkpoints(folder, {}, state.model.description(), 9, None, 60.0, pytest.fail) as checkpoints:
            for seed in range(3):
                state.update(*batch(4, seed), optimizer)
                checkpoints.save(state)
        return [load_file(path) for path in sorted(folder.iterdir())]

    found, expected = both(engine, reference, run)
    assert len(found) == 3 and all(map(same, found, expected))


def test_another_models_weights_stay(engine):
    """Two models on one engine: what one drops is not the other's."""
    first, second = (ResNet(18, 10, seed=seed, engine=engine) for seed in (1, 2))
    images, labels = batch(4)
    before = second.evaluate(images, labels)
    weights = first.state_dict()
    for _ in range(2):
        first.load_state_dict(weights)
        first.evaluate(images, labels)
    assert second.evaluate(images, labels) == before
    assert same(first.state_dict(), weights)


def test_what_is_replaced_leaves_the_memory(engine):
    """Files are where the engine's cache puts what it holds beyond its share of the heap."""
    optimizer = TrainSettings(base_lr=0.5, micro_batch=4).make_optimizer(10)
    state = State.fresh(ResNet(18, 10, seed=3, engine=engine))
    jvm, used = engine._jvm, []
    for seed in range(6):
        state.update(*batch(4, seed), optimizer)
        gc.collect()
        jvm.System.gc()
        used.append(engine.heap_used())
    assert used[5] - used[2] < 45 * 2**20, f"three steps left {(used[5] - used[2]) / 2**20:.0f} MiB"
