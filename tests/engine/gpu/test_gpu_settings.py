"""Steps of other settings and in other precisions on GPUs in software, against the CPU's in FP64."""

from collections import Counter
from contextlib import nullcontext

import numpy as np
import pytest
import software_gpus
from gpu_steps import IDS, batch, optimizer
from reference import relative_error

from sysds_resnet import ResNet
from sysds_resnet.classes.labels import MixedLabels
from sysds_resnet.train import TrainSettings
from sysds_resnet.training.gradients import compute_gradients
from sysds_resnet.training.state import State


@pytest.fixture(scope="module")
def libraries(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gpus")
    software_gpus.build(folder)
    return folder


@pytest.fixture(scope="module", params=[1, pytest.param(2, marks=pytest.mark.long)], ids=IDS)
def gpus(request, libraries):
    with software_gpus.engine_on(libraries, "double", request.param) as engine:
        yield engine


@pytest.mark.long
@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "sgd", "weight_decay": 1e-2},
        {"optimizer": "nesterov", "clip_norm": 0.1},
        {"lars_nesterov": True, "trust_clip": True, "lr_in_momentum": False},
        {"freeze": "layer2"},
        {"mixed": True, "label_smoothing": 0.1},
        {"weighted": True, "label_smoothing": 0.1},
        {"gray": True},
    ],
    ids=str,
)
def test_other_steps_are_those_of_the_cpu(gpus, engine, changes):
    images, labels = batch(8)
    changes = dict(changes)
    if changes.pop("mixed", False):
        labels = MixedLabels(labels, labels[::-1], np.linspace(0, 1, 8))
    if changes.pop("gray", False):
        images = images[..., :1]
    weights = np.linspace(0, 2, 10) if changes.pop("weighted", False) else ()
    run = TrainSettings(base_lr=0.5, micro_batch=4, **changes)

    def steps(engine):
        model = ResNet(18, 10, images.shape[3], seed=3, engine=engine)
        state, frozen = State.fresh(model), model.network.units_of(run.frozen_parts)
        for _ in range(2):
            state.update(images, labels, run.make_optimizer(10, frozen, weights))
        return model.state_dict()

    assert relative_error(steps(gpus), steps(engine)) < 1e-9


@pytest.mark.long
@pytest.mark.parametrize("name", ["adamw", "lamb"])
def test_updates_with_second_moments_are_those_of_the_cpu(gpus, engine, name):
    """Each kind of arithmetic is one operator on the GPU, for all tensors."""
    rates = dict(base_lr=0.01, warmup_epochs=0, weight_decay=0.05)
    run = TrainSettings(optimizer=name, micro_batch=4, clip_norm=0.5, freeze="stem", ema_decay=0.5, **rates)
    images, labels = batch(8)

    counted = Counter()

    def steps(engine):
        model = ResNet(18, 10, seed=3, engine=engine)
        network, made = model.network, run.make_optimizer(10, model.network.units_of(run.frozen_parts))
        state = State.fresh(model, name)
        for _ in range(2):
            gradients = compute_gradients(state.model, images, labels, made)
            with engine.gpu_operators() if engine.gpu else nullcontext({}) as operators:
                state.apply(*gradients, made)
            counted.update({name: operator.count for name, operator in operators.items()})
        kept = [network.from_engine(handle, trained_only=True) for handle in state.moments]
        return model.state_dict(), *kept, network.from_engine(state.average)

    assert max(map(relative_error, steps(gpus), steps(engine))) < 1e-9
    counts = {"weighted_sums": 4, "weighted_squares": 1, "over_roots": 1, "norms": 3}
    expected = {kind: 2 * count for kind, count in counts.items()}
    expected["weighted_sums"] += 1  # of the average, which is the weights themselves after the first step
    assert {kind: counted[f"gpu_{kind}"] for kind in counts} == expected
    assert "gpu_sqrt" not in counted


@pytest.mark.long
@pytest.mark.parametrize(("precision", "smallest", "largest"), [("single", 1e-8, 1e-5), ("tf32", 1e-5, 1e-1)])
@pytest.mark.usefixtures("wide")
def test_precisions_are_what_they_say(wide_engine, libraries, precision, smallest, largest):
    """Gradients and scores of the real ResNet-50 against the CPU's in FP64; its blocks begin as identities.

    With so many classes that what the engine makes of labels would be sparse.
    """

    def gradients_and_scores(engine):
        state = State.fresh(ResNet(50, 1000, seed=3, zero_init_residual=True, engine=engine))
        scores = state.model.logits(batch(8)[0], batch_size=8)
        found, _ = compute_gradients(state.model, *batch(8), optimizer())
        return state.model.network.from_engine(found), scores

    with software_gpus.engine_on(libraries, precision, 2) as gpus:
        (found, scores), (expected, exact) = gradients_and_scores(gpus), gradients_and_scores(wide_engine)
    difference = sum(np.linalg.norm(found[name] - expected[name]) ** 2 for name in expected) ** 0.5
    assert smallest < difference / sum(np.linalg.norm(v) ** 2 for v in expected.values()) ** 0.5 < largest
    assert smallest < np.linalg.norm(scores - exact) / np.linalg.norm(exact) < largest
