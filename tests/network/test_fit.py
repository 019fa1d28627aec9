"""Training on arrays by `ResNet.fit`: what it reports and refuses, its micro-batches and fused operators."""

import copy
import re
from pathlib import Path

import numpy as np
import pytest
from narrow import narrow_resnet
from refusals import message
from small_models import CLASSES, random_images, reference_model, seeded_model

from sysds_resnet import ResNet
from sysds_resnet.engine.jvm.classes import hidden
from sysds_resnet.train import TrainSettings
from sysds_resnet.training.gradients import compute_gradients
from sysds_resnet.training.state import State

EPOCH_COLUMNS = ["epoch", "step", "train_loss", "val_loss", "val_top1", "val_top5", "lr"]
EPOCH_COLUMNS += ["images_per_s", "seconds", "data_wait_s"]


@pytest.fixture(scope="module")
def model(engine):
    """No test changes its weights."""
    return reference_model(engine, narrow_resnet(18, CLASSES))


@pytest.fixture(scope="module")
def initial(engine):
    return seeded_model(engine)


@pytest.fixture
def fresh(initial):
    """A model for a test to change."""
    return copy.copy(initial)


def test_fit_lowers_the_loss_and_reports_each_epoch(fresh):
    labels = np.arange(12) % 3
    images = (random_images(12) // 4 + 60 * labels[:, None, None, None]).astype(np.uint8)
    settings = dict(epochs=2, batch_size=6, optimizer="sgd", base_lr=0.05, warmup_epochs=0, seed=5)
    before = fresh.evaluate(images, labels)["loss"]
    table = fresh.fit(images, labels, validation=(images[:4], labels[:4]), **settings)
    assert table.columns.tolist() == EPOCH_COLUMNS
    assert table["epoch"].tolist() == [1, 2] and table["step"].tolist() == [2, 4]
    assert table["train_loss"][1] < table["train_loss"][0] and np.isfinite(
        table.drop(columns="val_top5")
    ).all(axis=None)
    scores = fresh.evaluate(images[:4], labels[:4])
    assert table["val_loss"][1] == pytest.approx(scores["loss"], rel=1e-12)
    assert table["val_top1"][1] == scores["top1"] and table["val_top5"].isna().all()  # of 3 classes
    assert before > table["train_loss"][1]


def test_fit_without_validation_leaves_its_columns_empty(fresh):
    before = fresh.state_dict()
    table = fresh.fit(random_images(4), np.array([0, 1, 2, 0]), epochs=1, batch_size=4, warmup_epochs=0)
    assert table.columns.tolist() == EPOCH_COLUMNS
    assert table[["val_loss", "val_top1", "val_top5"]].isna().all(axis=None)
    after = fresh.state_dict()
    assert not np.array_equal(before["conv1.weight"], after["conv1.weight"])


@pytest.mark.parametrize(
    ("images", "labels", "settings", "found"),
    [
        (
            random_images(4),
            np.array([0, 1, 2, 3]),
            {},
            "labels: found 3 at position 3, expected whole",
        ),
        (random_images(4) > 100, np.zeros(4, int), {}, "images: found bool, expected numbers from 0 to 255"),
        (random_images(4) / 255, np.zeros(4, int), {}, "images: found values from 0 to 1, expected pixels"),
        (random_images(4), np.zeros(3, int), {}, "labels: found int64 of shape (3,)"),
        (random_images(4), np.zeros(4, int), {"batch_size": 5}, "batch_size: found 5 for 4 training images"),
        (random_images(4), np.zeros(4, int), {"micro_batch": 3}, "micro_batch: found 3 with batch_size 4"),
        (
            random_images(4),
            np.zeros(4, int),
            {"rate": 1},
            "rate: found an argument that fit has not, expected one",
        ),
        (random_images(4), np.zeros(4, int), {"base_lr": -1}, "base_lr: found -1, expected greater than 0"),
    ],
)
def test_fit_refuses_what_it_cannot_use_and_changes_nothing(fresh, images, labels, settings, found):
    weights = fresh.weights
    assert found in message(fresh.fit, images, labels, **{"epochs": 1, "batch_size": 4, **settings})
    assert fresh.weights is weights


def test_float_images_are_trained_on_as_uint8_ones_are(initial):
    ends = []
    for dtype in (np.uint8, np.float32, np.float64):
        model = copy.copy(initial)
        images = random_images(6).astype(dtype)
        model.fit(images, np.array([0, 1, 2, 0, 1, 2]), epochs=1, batch_size=3, warmup_epochs=0)
        ends.append(model.state_dict())
    for name, array in ends[0].items():
        np.testing.assert_array_equal(ends[1][name], array, err_msg=name)
        np.testing.assert_array_equal(ends[2][name], array, err_msg=name)


def test_each_epoch_is_told_when_it_is_done(fresh):
    told = []
    settings = dict(epochs=2, batch_size=2, warmup_epochs=0, on_epoch=told.append)
    table = fresh.fit(random_images(4), np.array([0, 1, 2, 0]), **settings)
    assert [(event.epoch, event.train_loss) for event in told] == list(
        zip(table["epoch"], table["train_loss"], strict=True)
    )


@pytest.mark.parametrize(
    ("weights", "found"),
    [
        ([1, 2], "class_weights: found int64 of shape (2,), expected 3 numbers, one for each class"),
        ([1, 2, -1], "class_weights: found [1, 2, -1], expected finite numbers of at least 0"),
        ([1, 2, np.nan], "class_weights: found [1.0, 2.0, nan], expected finite numbers"),
        ("weights.yaml", "weights.yaml: found no readable file"),
    ],
)
def test_weights_of_classes_that_are_none_are_refused(fresh, weights, found):
    images, labels = random_images(4), np.array([0, 1, 2, 0])
    assert found in message(fresh.fit, images, labels, epochs=1, batch_size=4, class_weights=weights)


def test_classes_are_weighted_in_the_loss_that_is_reported(initial):
    """A weight of 0 leaves a class out of loss and gradient; the loss is divided by all images."""
    images, labels = random_images(6), np.array([0, 1, 2, 0, 1, 2])
    settings = dict(epochs=1, batch_size=6, warmup_epochs=0)
    losses = {}
    for weights in (None, (1, 1, 1), (2, 0, 0), (0, 2, 0), (0, 0, 2)):
        model = copy.copy(initial)
        losses[weights] = model.fit(images, labels, class_weights=weights, **settings)["train_loss"][0]
    assert losses[None] == losses[1, 1, 1]
    assert sum(losses[weights] for weights in list(losses)[2:]) == pytest.approx(2 * losses[None], rel=1e-12)


def test_a_diverging_run_stops_before_the_weights_are_spoilt(fresh):
    settings = dict(epochs=4, batch_size=4, optimizer="sgd", base_lr=1e200, warmup_epochs=0)
    text = message(fresh.fit, random_images(4), np.array([0, 1, 2, 0]), **settings)
    assert re.match(r"step \d: found loss \S+ and gradient norm \S+, expected finite numbers; ", text)
    assert "base_lr" in text


def test_a_batch_that_micro_batches_do_not_divide_is_refused(model):
    optimizer = TrainSettings(micro_batch=3).make_optimizer(steps_per_epoch=1)
    state = State(model, moments=())
    found = message(state.update, random_images(4), np.array([0, 1, 2, 0]), optimizer)
    assert found.startswith("micro_batch: found 3 for a batch of 4 images, expected a divisor of it")


def test_micro_batches_add_up_as_in_dml(model):
    """`State.update` sends one micro-batch at a time; the DML that the command line runs has them all."""
    images, labels = random_images(6), np.array([0, 1, 2, 0, 2, 1])
    engine, network = model.engine, model.network
    optimizer = TrainSettings(micro_batch=2).make_optimizer(steps_per_epoch=1)
    gradients, metrics = compute_gradients(model, images, labels, optimizer)
    program = """
    source("dml/training/data.dml") as data
    source("dml/training/gradients.dml") as trainer
    pixels = data::normalize(X, mean, std)
    settings = trainer::settings(mean, std, 0.0, 0, 1e-5)
    [gradients, metrics] = trainer::batch_gradients(pixels, y, model, plan, settings, 2)
    """
    inputs = {
        "X": images.reshape(-1, 3),
        "y": labels.reshape(-1, 1) + 1.0,
        "mean": model.mean,
        "std": model.std,
        "model": model.weights,
        "plan": network.plan(2, 32, 32, backward=True),
    }
    expected = engine.run(program, inputs, {"gradients": "list", "metrics": "matrix"})
    np.testing.assert_array_equal(metrics, engine.to_numpy(expected["metrics"])[0])
    pairs = zip(engine.list_items(gradients), engine.list_items(expected["gradients"]), strict=True)
    for left, right in pairs:
        np.testing.assert_array_equal(engine.to_numpy(left), engine.to_numpy(right))


def test_operators_of_our_own_alone_are_fused(engine):
    """The engine's code generator would fuse others, for sizes that it does not know, and fail at some."""
    engine._programs.compiled.clear()
    model = ResNet(18, num_classes=3, engine=engine)
    images = np.zeros((2, 33, 32, 3), np.uint8)
    model.logits(images)
    model.fit(images, np.array([0, 1]), epochs=1, batch_size=2)
    fused = set()
    for key, script in engine._programs.compiled.items():
        function, explain = "main", engine._jvm.org.apache.sysds.utils.Explain.explain
        for line in explain(hidden(script, "_prog")).splitlines():
            if "FUNCTION " in line:
                function = line.split("FUNCTION ")[1].split()[0]
            elif "--MAIN" in line:
                function = "main"
            elif " spoof " in line:
                source, name = function.split("::")
                file = Path(source).stem
                assert key[3] and f"codegen.{file}_{name}_" in line, (function, line)
                fused.add(f"{file}.{name}")
    functions = {"norm_relu", "norm_add_relu", "norm_backward", "relu_dots", "dots", "moments", "squares"}
    assert {
        *(f"pixelwise.{name}" for name in functions),
        "max_pool2d.forward",
        "max_pool2d.backward",
    } <= fused
