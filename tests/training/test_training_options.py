"""What surrounds a step (freezing, factors, clipping, averaging, steps that fail) against PyTorch."""

import numpy as np
import pytest
import torch
from narrow import narrow_resnet
from reference import arrays
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from sysds_resnet import ResNet
from sysds_resnet.batches.readers import Readers
from sysds_resnet.classes.labels import MixedLabels
from sysds_resnet.errors import NotFinite, UserError
from sysds_resnet.images import ArrayDataset
from sysds_resnet.training import loop
from sysds_resnet.training.settings import FROZEN_PARTS, TrainSettings
from sysds_resnet.training.state import State
from sysds_resnet.training.steps import training_steps

CLASSES, STEPS, BATCH = 5, 3, 4
MEAN, STD = np.array([120.0, 110.0, 100.0]), np.array([60.0, 50.0, 70.0])
SETTINGS = dict(
    batch_size=BATCH, micro_batch=BATCH, optimizer="sgd", schedule="constant", base_lr=0.05, warmup_epochs=0
)
ADAMW = dict(optimizer="adamw", base_lr=0.002, weight_decay=0.1, norm_weight_decay=0.02)
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (STEPS * BATCH, 32, 32, 3), dtype=np.uint8)
LABELS = RNG.integers(0, CLASSES, STEPS * BATCH)


def ours(engine, reference, depth, settings, class_weights=()):
    """The state after training on the batches one after the other."""
    model = ResNet.from_state_dict(arrays(reference), engine, mean=MEAN, std=STD)
    settings = TrainSettings(model=f"resnet{depth}", **SETTINGS | settings)
    frozen = model.network.units_of(settings.frozen_parts)
    optimizer = settings.make_optimizer(STEPS, frozen, class_weights)
    state = State.fresh(model, settings.optimizer)
    for start in range(0, len(IMAGES), BATCH):
        state.update(IMAGES[start : start + BATCH], LABELS[start : start + BATCH], optimizer)
    return state


def part_of(name):
    """The part of the network that a parameter or module of torchvision's names belongs to."""
    first = name.split(".")[0]
    return "stem" if first in ("conv1", "bn1") else first


def groups(model, s):
    """Parameters by role, with their own learning rates and decays."""
    frozen = FROZEN_PARTS[1 : FROZEN_PARTS.index(s.freeze) + 1]
    for name, w in model.named_parameters():
        if part_of(name) in frozen:
            w.requires_grad = False
        elif name.startswith("fc."):
            decay = s.weight_decay if w.ndim > 1 else s.bias_weight_decay
            yield {"params": [w], "lr": s.base_lr * s.fc_lr_factor, "weight_decay": decay}
        elif w.ndim > 1:
            yield {"params": [w], "lr": s.base_lr * s.conv_lr_factor, "weight_decay": s.weight_decay}
        else:
            yield {"params": [w], "lr": s.base_lr * s.norm_lr_factor, "weight_decay": s.norm_weight_decay}


def theirs(reference, settings, class_weights=()):
    """PyTorch's model after the same, its average, and the gradient's norms."""
    s = TrainSettings(**SETTINGS | settings)
    if s.optimizer == "adamw":
        optimizer = torch.optim.AdamW(groups(reference, s), betas=(s.beta1, s.beta2), eps=s.adam_eps)
    else:
        optimizer = torch.optim.SGD(groups(reference, s), momentum=s.momentum)
    averaged = AveragedModel(reference, multi_avg_fn=get_ema_multi_avg_fn(s.ema_decay), use_buffers=True)
    reference.train()
    for name, module in reference.named_children():
        if part_of(name) in FROZEN_PARTS[1 : FROZEN_PARTS.index(s.freeze) + 1]:
            module.eval()
    pixels = torch.from_numpy((IMAGES - MEAN) / STD).permute(0, 3, 1, 2)
    norms = []
    for step in range(STEPS):
        part = slice(step * BATCH, (step + 1) * BATCH)
        optimizer.zero_grad()
        factors = torch.tensor(class_weights or [1.0] * CLASSES, dtype=torch.float64)
        sum_of_losses = functional.cross_entropy(
            reference(pixels[part]), torch.from_numpy(LABELS[part]), weight=factors, reduction="sum"
        )
        (sum_of_losses / BATCH).backward()
        parameters = [w for w in reference.parameters() if w.requires_grad]
        norms.append(torch.nn.utils.clip_grad_norm_(parameters, s.clip_norm or np.inf).item())
        optimizer.step()
        if step == 0 or (step + 1) % s.ema_every == 0:
            averaged.update_parameters(reference)
    return reference, averaged.module, norms


def assert_same(found, expected, tolerance=1e-8):
    for name, array in found.items():
        difference = np.linalg.norm(array - expected[name]) / max(np.linalg.norm(expected[name]), 1e-12)
        assert difference <= tolerance, f"{name}: off by {difference:.1e}"


@pytest.mark.parametrize(
    ("depth", "settings"),
    [
        (18, {"clip_norm": 1.5}),
        (18, {"clip_norm": 1e6}),  # larger than any gradient here
        (18, {"weight_decay": 0.01, "norm_weight_decay": 0.02, "bias_weight_decay": 0.05}),
        (18, {"conv_lr_factor": 0.5, "norm_lr_factor": 0.0, "fc_lr_factor": 3.0}),
        *[(18, {"freeze": part}) for part in ("stem", "layer1", "layer4")],
        (18, ADAMW | {"bias_weight_decay": 0.05, "fc_lr_factor": 3.0, "clip_norm": 1.5, "freeze": "layer1"}),
        pytest.param(50, {"freeze": "stem"}, marks=pytest.mark.long),
        pytest.param(
            50,
            {"freeze": "layer2", "fc_lr_factor": 10.0, "clip_norm": 1.0, "weight_decay": 0.01},
            marks=pytest.mark.long,
        ),
        pytest.param(50, {"freeze": "layer4"}, marks=pytest.mark.long),
    ],
)
def test_training_is_pytorchs(engine, depth, settings):
    reference = narrow_resnet(depth, CLASSES)
    start = {name: array.copy() for name, array in arrays(reference).items()}
    state = ours(engine, reference, depth, settings)
    trained, _, norms = theirs(reference, settings)
    found = state.model.state_dict()
    # four images leave four values to normalize in the last stage, which deeper networks pass on
    assert_same(found, arrays(trained), 1e-8 if depth == 18 else 1e-6)
    if "clip_norm" in settings:
        assert (max(norms) > settings["clip_norm"]) == (settings["clip_norm"] < 1e6), "or nothing is tested"
    frozen = FROZEN_PARTS[1 : FROZEN_PARTS.index(settings.get("freeze", "none")) + 1]
    for name, array in found.items():
        if part_of(name) in frozen:  # bit by bit, running statistics included
            np.testing.assert_array_equal(array, start[name], err_msg=name)
        elif settings.get("norm_lr_factor") != 0.0:
            assert not np.array_equal(array, start[name]), name


@pytest.mark.parametrize("class_weights", [(1.0, 2.5, 0.0, 0.3, 7.0), (1.0,) * CLASSES])
def test_training_with_weights_of_classes_is_pytorchs(engine, class_weights):
    reference = narrow_resnet(18, CLASSES)
    state = ours(engine, reference, 18, {}, class_weights)
    trained, _, _ = theirs(reference, {}, class_weights)
    assert_same(state.model.state_dict(), arrays(trained))


def test_weights_of_classes_are_for_images_of_one_class(engine):
    model = ResNet(18, CLASSES, engine=engine)
    mixed = MixedLabels(LABELS[:BATCH], LABELS[:BATCH], np.ones(BATCH))
    optimizer = TrainSettings(**SETTINGS).make_optimizer(STEPS, class_weights=[1.0] * CLASSES)
    with pytest.raises(UserError, match="class_weights: found one with mixed images, expected"):
        State.fresh(model).update(IMAGES[:BATCH], mixed, optimizer)


@pytest.mark.parametrize("micro_batch", [2, 4])
def test_gradient_norm_is_that_of_the_whole_batch(engine, micro_batch):
    reference = narrow_resnet(18, CLASSES).eval()
    model = ResNet.from_state_dict(arrays(reference), engine, mean=MEAN, std=STD)
    settings = TrainSettings(**SETTINGS | {"micro_batch": micro_batch})
    images, labels = IMAGES[:BATCH], LABELS[:BATCH]
    found = State.fresh(model).update(images, labels, settings.make_optimizer(STEPS)).grad_norm
    pixels = torch.from_numpy((images - MEAN) / STD).permute(0, 3, 1, 2)
    reference.train()
    for start in range(0, BATCH, micro_batch):
        part = slice(start, start + micro_batch)
        loss = functional.cross_entropy(
            reference(pixels[part]), torch.from_numpy(labels[part]), reduction="sum"
        )
        (loss / BATCH).backward()
    expected = torch.cat([w.grad.reshape(-1) for w in reference.parameters()]).norm().item()
    assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("every", "warmup", "changes"), [(1, 0, {}), (2, 0, {}), (1, 2 / STEPS, {}), (1, 0, ADAMW)]
)
def test_averaged_weights_are_those_of_torch(engine, every, warmup, changes):
    reference = narrow_resnet(18, CLASSES)
    settings = {"ema_decay": 0.7, "ema_every": every} | changes
    if warmup:  # the average is the weights until then, and moves once after
        model = ResNet.from_state_dict(arrays(reference), engine, mean=MEAN, std=STD)
        optimizer = TrainSettings(**SETTINGS | settings | {"warmup_epochs": warmup}).make_optimizer(STEPS)
        state, seen = State.fresh(model), []
        for start in range(0, len(IMAGES), BATCH):
            state.update(IMAGES[start : start + BATCH], LABELS[start : start + BATCH], optimizer)
            seen.append(model.state_dict())
        expected = {name: 0.7 * seen[1][name] + 0.3 * seen[2][name] for name in seen[0]}
    else:
        state = ours(engine, reference, 18, settings)
        expected = arrays(theirs(reference, settings)[1])
    found = state.model.network.from_engine(state.averaged)
    assert_same(found, expected)
    assert not np.allclose(found["fc.weight"], state.model.state_dict()["fc.weight"], rtol=1e-6)


def test_without_averaging_the_weights_are_what_is_kept(engine):
    state = ours(engine, narrow_resnet(18, CLASSES), 18, {})
    assert state.average is None and state.averaged is state.model.weights


@pytest.mark.parametrize("optimizer", ["adamw", "lamb"])
def test_a_step_whose_update_is_left_out_does_not_count_for_the_bias_correction(engine, optimizer):
    settings = TrainSettings(**SETTINGS | {"optimizer": optimizer}).make_optimizer(STEPS)
    ends = []
    for left_out in (False, True):
        state = State.fresh(ResNet(18, CLASSES, engine=engine, seed=3, mean=MEAN, std=STD), optimizer)
        for _ in range(2):
            state.update(IMAGES[:BATCH], LABELS[:BATCH], settings)
            if left_out:
                state.progress.skip()
        ends.append(state.model.state_dict())
    assert all(np.array_equal(ends[0][name], ends[1][name]) for name in ends[0])


# Steps whose loss or gradient is not finite


@pytest.fixture
def state(engine):
    return State.fresh(ResNet(18, CLASSES, engine=engine, mean=MEAN, std=STD))


@pytest.mark.parametrize("scale", [1e160, 1e306])  # the gradient's square overflows, then the loss
def test_a_step_that_is_not_finite_changes_nothing(state, scale):
    weights = state.model.state_dict()
    spoilt = {n: a * scale if n == "fc.weight" else a for n, a in weights.items()}
    state.model.load_state_dict(spoilt)
    before = (state.model.weights, state.moments)
    optimizer = TrainSettings(**SETTINGS).make_optimizer(STEPS)
    with pytest.raises(NotFinite, match=r"step 1: found loss \S+ and gradient norm \S+, expected") as error:
        state.update(IMAGES[:BATCH], LABELS[:BATCH], optimizer)
    assert not np.isfinite([error.value.metrics.loss, error.value.metrics.grad_norm]).all()
    assert (state.model.weights, state.moments) == before and state.progress.step == 0


def run_loop(state, failing, **options):
    """The loop over six steps of an update that fails at the steps in `failing`; the metrics it reports."""
    dataset = ArrayDataset(IMAGES, LABELS, [str(i) for i in range(CLASSES)], mean=MEAN, std=STD)
    settings = TrainSettings(**SETTINGS, seed=1)

    def update(images, labels, optimizer):
        if state.progress.step + 1 in failing:
            raise NotFinite(f"step {state.progress.step + 1}", loop.StepMetrics(np.nan, 0, 0, 0.05, np.inf))
        return state.update(images, labels, optimizer)

    optimizer = settings.make_optimizer(STEPS)
    with (
        Readers([dataset], 1) as readers,
        training_steps(settings, state, dataset, readers, update=update) as steps,
    ):
        events = loop.training_loop(state, steps, optimizer, epochs=2, validate=dict, **options)
        return [event.metrics for event in events if isinstance(event, loop.StepEvent)]


def test_steps_that_are_not_finite_are_left_out_and_counted(state):
    metrics = run_loop(state, {2, 3, 5}, on_nan="skip")
    assert [m.skipped for m in metrics] == [False, True, True, False, True, False]
    progress = state.progress
    assert (progress.step, progress.skipped, progress.skipped_in_a_row) == (6, 3, 0)


def test_the_first_one_ends_training_by_default(state):
    with pytest.raises(NotFinite, match="step 3"):
        run_loop(state, {3})
    assert (state.progress.step, state.progress.step_in_epoch) == (2, 2), "from where it can be resumed"


def test_too_many_in_a_row_end_training(state, monkeypatch):
    monkeypatch.setattr(loop, "MAX_SKIPPED", 2)
    with pytest.raises(NotFinite, match="step 4"):
        run_loop(state, {2, 3, 4}, on_nan="skip")
