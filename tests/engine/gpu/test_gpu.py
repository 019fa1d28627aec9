"""The GPU backend on GPUs in software: what it computes, where, and what it frees and keeps."""

import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import software_gpus
from gpu_steps import IDS, batch, optimizer
from narrow import narrow_resnet
from reference import arrays, relative_error
from safetensors.numpy import load_file

from sysds_resnet import ResNet
from sysds_resnet.engine.gpu import gpus as engine_gpu
from sysds_resnet.engine.jvm import classes as own_java
from sysds_resnet.engine.program import Program
from sysds_resnet.errors import NotFinite, OutOfMemory
from sysds_resnet.network.weights.files import MODEL
from sysds_resnet.scoring.ensemble import Ensemble
from sysds_resnet.train import TrainSettings
from sysds_resnet.training.checkpoints import Checkpoints
from sysds_resnet.training.gradients import compute_gradients
from sysds_resnet.training.state import State

GIB = 2**30
HEAVY = {"conv2d", "batch_norm2d", "maxpooling", "avgpooling", "ba+*", "^2", "exp", "log"}
HEAVY |= {f"{name}_backward" for name in HEAVY} | {"conv2d_backward_filter", "conv2d_backward_data"}


@pytest.fixture(scope="module")
def libraries(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gpus")
    software_gpus.build(folder)
    return folder


@pytest.fixture(scope="module")
def log(libraries):
    return libraries / "copied"


@pytest.fixture(scope="module", params=[1, pytest.param(2, marks=pytest.mark.long)], ids=IDS)
def gpus(request, libraries, log):
    with software_gpus.engine_on(libraries, "double", request.param, log=log) as engine:
        yield engine


@pytest.fixture(scope="module")
def single(libraries):
    """Three GPUs in single precision, with little memory."""
    with software_gpus.engine_on(libraries, "single", 3, memory=GIB // 16) as engine:
        yield engine


def same(found, expected):
    return all(np.array_equal(found[name], expected[name]) for name in expected)


def fresh(engine):
    return State.fresh(ResNet(18, 10, seed=3, engine=engine))


def two_steps(engine):
    """What two steps of two micro-batches with an average, and validations between, end with."""
    state, losses = fresh(engine), []
    for seed in range(2):
        state.update(*batch(8, seed), optimizer(ema_decay=0.5, label_smoothing=0.1))
        trained, state.model.weights = state.model.weights, state.averaged
        losses.append(state.model.evaluate(*batch(4))["loss"])
        state.model.weights = trained
        losses.append(state.model.evaluate(*batch(4))["loss"])
    network = state.model.network
    return losses, state.model.state_dict(), *map(network.from_engine, (*state.moments, state.average))


@pytest.fixture(scope="module")
def on_the_cpu(engine):
    """The same on the CPU, in the pixel-major layout."""
    return two_steps(engine)


def test_steps_validation_and_averages_are_those_of_the_cpu(gpus, on_the_cpu):
    (losses, *found), (expected_losses, *expected) = two_steps(gpus), on_the_cpu
    assert losses == pytest.approx(expected_losses, rel=1e-9)
    assert max(map(relative_error, found, expected)) < 1e-9


def test_a_step_that_is_not_finite_leaves_the_state(gpus):
    state = fresh(gpus)
    images, labels = batch(4)
    before = state.model.state_dict()
    gradients, metrics = compute_gradients(state.model, images, labels, optimizer())
    with pytest.raises(NotFinite):
        state.apply(gradients, metrics * np.nan, optimizer())
    assert same(state.model.state_dict(), before)
    state.update(images, labels, optimizer())
    assert not same(state.model.state_dict(), before)


def test_checkpoints_hold_the_state_while_training_goes_on(gpus, tmp_path):
    state, expected = fresh(gpus), []
    with Checkpoints(tmp_path, {}, state.model.description(), 9, None, 60.0, pytest.fail) as checkpoints:
        for seed in range(2):
            state.update(*batch(4, seed), optimizer())
            checkpoints.save(state)
            expected.append(state.model.state_dict())
    found = [load_file(path) for path in sorted(tmp_path.iterdir())]
    for tensors, weights in zip(found, expected, strict=True):
        assert all(np.array_equal(tensors[MODEL + name], weights[name]) for name in weights)


def test_orders_of_epochs_are_made_while_a_step_runs(gpus):
    """Another thread asks for them, with the next images (training/steps.py)."""
    expected, found = fresh(gpus), fresh(gpus)
    orders = [expected.order(100, 1, epoch) for epoch in range(2)]
    stop, made = threading.Event(), []

    def make():
        while not stop.is_set() or len(made) < 4:
            made.append(np.array_equal(found.order(100, 1, len(made) % 2), orders[len(made) % 2]))

    with ThreadPoolExecutor(1) as thread:
        making = thread.submit(make)
        try:
            found.update(*batch(4 * gpus.workers), optimizer())
        finally:
            stop.set()
        making.result()
    expected.update(*batch(4 * gpus.workers), optimizer())
    assert len(made) > 2 and all(made)
    assert same(found.model.state_dict(), expected.model.state_dict())


def test_another_models_weights_stay(gpus):
    """Two models on one engine: what one drops is not the other's."""
    first, second = (ResNet(18, 10, seed=seed, engine=gpus) for seed in (1, 2))
    before = second.evaluate(*batch(4))
    weights = first.state_dict()
    for _ in range(2):
        first.load_state_dict(weights)
        first.evaluate(*batch(4))
    assert second.evaluate(*batch(4)) == before
    assert same(first.state_dict(), weights)


@pytest.mark.long
def test_what_is_replaced_leaves_the_memory(gpus):
    state, free = fresh(gpus), []
    for seed in range(4):
        state.update(*batch(4 * gpus.workers, seed), optimizer())
        state.model.evaluate(*batch(4))
        gc.collect()
        free.append(gpus.gpu_memory()[0])
    # which of two GPUs computes what is up to them, and the engine keeps what it frees, to use it again
    assert abs(free[3] - free[1]) <= (0 if gpus.workers == 1 else 4096)


@pytest.mark.long
def test_what_runs_on_the_cpu_and_is_copied_is_known(gpus, log):
    state, workers = fresh(gpus), gpus.workers
    images, labels = batch(4 * workers)
    state.update(images, labels, optimizer())
    log.unlink()
    with gpus.gpu_operators() as found:
        state.update(images, labels, optimizer())
    # of a number for each tensor
    assert {name: found[name].count for name in HEAVY & found.keys()} == {"^2": 1}
    assert found["gpu_relu_backward"].count == 17 * workers
    convolutions = [found[f"gpu_conv2d{name}"].count for name in ("", "_backward_filter", "_backward_data")]
    assert convolutions == [20 * workers, 20 * workers, 19 * workers]
    # velocities, weights, and running statistics; norms of gradients and of weights
    assert [found[f"gpu_{name}"].count for name in ("weighted_sums", "norms")] == [3, 2]
    copied = np.loadtxt(log, int)
    assert np.sum(copied[:, 0] == 2) <= 8 * workers  # each a wait for the GPU
    to_gpu, from_gpu = (copied[copied[:, 0] == kind, 1].sum() for kind in (1, 2))
    # a pixel travels in a double; beside them labels, targets, what pixels are normalized with, and constants
    pixels = 8 * images.size // 3
    assert pixels <= to_gpu < pixels + workers * (8 * 32 * 32 + 2048)
    assert from_gpu < 4096  # norms of tensors and metrics


@pytest.mark.long
def test_a_step_in_single_precision_is_near_the_one_in_double(gpus, single):
    """Within what the CPU's FP32 would be off as well; `-m long` has a network for which that is little."""
    images, labels = batch(16)  # four micro-batches
    losses, norms, scores = [], [], []
    for engine in (single, gpus):
        state = fresh(engine)
        with engine.gpu_operators() as found:
            result = state.update(images, labels, optimizer())
        if engine is single:  # gradients are added by an operator each time
            assert found["gpu_add"].count == 3
        losses.append(result.loss)
        norms.append(result.grad_norm)
        scores.append(state.model.logits(images, batch_size=8))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5) and losses[0] != losses[1]
    assert norms[0] == pytest.approx(norms[1], rel=1e-3)
    assert np.abs(scores[0] - scores[1]).max() < 1e-2 * np.abs(scores[1]).max()


def test_images_that_are_sent_ahead_get_the_same_scores(gpus):
    """Of arrays in several parts, the last filled up, and of what was sent before, to two networks."""
    images, labels = batch(7)
    first, second = (ResNet(18, 10, seed=seed, engine=gpus) for seed in (1, 2))
    whole = first.logits(images, batch_size=8)
    parts = first.logits(images, batch_size=2 * gpus.workers)
    assert np.abs(parts - whole).max() < 1e-12 * np.abs(whole).max()
    both = Ensemble([first, second], ["first", "second"])
    mirrored = np.concatenate([images, images[:, :, ::-1]], axis=1)  # two views of each
    assert np.array_equal(both.scores(both.send(mirrored, 2), 2), both.scores(mirrored, 2))
    assert first.evaluate(first.send(images), labels) == first.evaluate(images, labels)


def test_pytorchs_scores_with_its_weights(gpus):
    import torch

    reference = narrow_resnet(18, 10)
    model = ResNet.from_state_dict(arrays(reference), gpus)
    images, _ = batch(6)
    pixels = torch.from_numpy(((images - model.mean) / model.std).transpose(0, 3, 1, 2).copy())
    with torch.no_grad():
        expected, features = reference.eval()(pixels).numpy(), reference.features(pixels).numpy()
    assert np.abs(model.logits(images) - expected).max() < 1e-10 * np.abs(expected).max()
    assert np.abs(model.features(images, batch_size=4) - features).max() < 1e-10 * np.abs(features).max()


@pytest.mark.long
def test_memory_that_is_full_is_told(single):
    images, labels = np.tile(batch(8)[0], (8, 4, 4, 1)), np.zeros(64, int)  # 8 MB after the stem
    whole = TrainSettings(base_lr=0.5, micro_batch=64).make_optimizer(10)
    with pytest.raises(OutOfMemory, match="GPU: found the memory of software GPU full, expected enough"):
        compute_gradients(fresh(single).model, images, labels, whole)


@pytest.mark.long
def test_without_our_class_convolutions_would_take_the_engines_algorithm(libraries, monkeypatch):
    """Once this fails, engine/gpu/replaced/LibMatrixCuDNNConvolutionAlgorithm.java can go."""
    monkeypatch.setattr(engine_gpu, "replace_class", lambda *_: None)
    with software_gpus.engine_on(libraries, "double", 1) as engine:
        model = ResNet(18, 10, engine=engine)
        with pytest.raises(RuntimeError, match="CUDNN_STATUS_EXECUTION_FAILED"):
            model.evaluate(*batch(4))


def test_a_class_that_was_used_is_not_replaced(gpus):
    with pytest.raises(Exception, match="duplicate class definition"):
        own_java.replace_class(
            gpus._gateway,
            Path(engine_gpu.__file__).parent / "replaced" / "LibMatrixCuDNNConvolutionAlgorithm.java",
            "org.apache.sysds.runtime.matrix.data.LibMatrixCUDA",
        )


@pytest.mark.long
def test_the_engine_still_leaves_zeros_unwritten(libraries):
    """Once this fails, `Devices.upload` need not take care of them."""
    with software_gpus.engine_on(libraries, "double", 1) as engine:
        program = "B = matrix(0, rows=3, cols=1)\nwhile(FALSE){}\nC = bias_add(A, B)"
        found = engine.run(Program(program, {"C": "matrix"}, "device"), {"A": np.ones((2, 3))})["C"]
        assert np.isnan(engine.to_numpy(found)).all()
