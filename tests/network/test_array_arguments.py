"""Images and labels in the forms that people have: taken where they are plain, and otherwise one line."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from dml_runner import assert_close
from four_images import CLASSES, PLAIN, random_images
from refusals import message

from sysds_resnet import ResNet
from sysds_resnet.classes.labels import MixedLabels, class_labels
from sysds_resnet.images import IMAGENET_MEAN, IMAGENET_STD, ArrayDataset
from sysds_resnet.images.pixels.mixing import Mixing
from sysds_resnet.network.arrays import check_images, check_labels, lay_out, scale_fault

# Images


@pytest.mark.parametrize(
    "given",
    [
        list(random_images()),
        random_images().tolist(),
        torch.from_numpy(random_images()),
        random_images().astype(np.int64),
        random_images().astype(np.float16),
    ],
    ids=["list", "lists", "tensor", "int64", "float16"],
)
def test_images_that_are_plain_are_taken(given):
    np.testing.assert_array_equal(check_images(given, 3), random_images())


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (random_images().transpose(0, 3, 1, 2), "(4, 3, 32, 40), expected (N, H, W, 3) with N of at least 1; "
         "this looks like (N, C, H, W): give images.transpose(0, 2, 3, 1)"),
        (torch.zeros(4, 3, 32, 40), "this looks like (N, C, H, W)"),
        (random_images()[0], "(32, 40, 3), expected (N, H, W, 3) with N of at least 1; this looks like a "
         "single image: give images[None]"),
        (random_images()[:0], "images: found shape (0, 32, 40, 3)"),
        ([], "images: found shape (0,)"),
        ([random_images()[0], random_images()[0][:30]], "images: found list that is no array"),
        (torch.zeros(4, 32, 40, 3, requires_grad=True), "images: found Tensor that is no array"),
        (random_images() > 100, "images: found bool, expected numbers from 0 to 255"),
        (random_images().astype(object), "images: found object, expected numbers"),
        (random_images().astype(str), "images: found <U3, expected numbers"),
        (random_images().astype(complex), "images: found complex128"),
        (None, "images: found shape ()"),
        ("cat.jpg", "images: found shape ()"),
    ],
)  # fmt: skip
def test_images_that_are_none_are_one_line(given, found):
    assert found in message(check_images, given, 3)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda x: x / 255, "from 0 to 1, expected pixels from 0 to 255, as mean and std are; multiply"),
        (lambda x: (x / 255).astype(np.float32)[:1], "multiply them by 255"),
        (lambda x: (x - IMAGENET_MEAN) / IMAGENET_STD, "give pixels that are not normalised yet"),
        (lambda x: x / 127.5 - 1, "give pixels that are not normalised yet"),
        (lambda x: x.astype(np.uint16) * 257, "from 0 to 6.554e+04, expected pixels from 0 to 255"),
        (lambda x: x.astype(int) - 128, "from -128 to 127, expected pixels from 0 to 255"),
    ],
)  # fmt: skip
def test_pixels_of_another_scale_are_one_line(change, found):
    assert found in scale_fault(change(random_images()))


@pytest.mark.parametrize(
    "images",
    [
        random_images() + 0.5,
        random_images() * 1.05 - 6,  # resampled by a filter that goes past the ends
        np.zeros((1, 32, 32, 3)),
        np.ones((1, 32, 32, 3)),
        np.full((1, 32, 32, 3), 0.25) + 100,  # a grey card
    ],
    ids=["fractions", "beyond", "black", "ones", "grey"],
)
def test_pixels_of_the_right_scale_are_taken(images):
    assert scale_fault(images) is None


def test_pixels_of_a_model_with_another_scale_are_its_own():
    engine = SimpleNamespace(channel_major=False)
    sent = lay_out(random_images() / 255, 4, engine)
    for std in (IMAGENET_STD / 255, np.ones(3), np.full(3, 1e4)):
        sent.check(engine, 3, std)
    for std in (IMAGENET_STD, np.full(3, 127.5), np.full(3, 255)):
        assert message(sent.check, engine, 3, std) == scale_fault(random_images() / 255)


@pytest.mark.parametrize("batch_size", [0, -1, 2.5, "8", True])
def test_a_batch_size_that_is_none_is_one_line(engine, batch_size):
    model = ResNet(18, CLASSES, engine=engine)
    for call in (model.logits, model.predict, model.predict_proba, model.send):
        found = message(call, random_images(), batch_size)
        assert found == f"batch_size: found {batch_size!r}, expected a whole number of at least 1; give one"


def test_images_that_another_model_sent_are_taken_if_they_fit(engine):
    images = random_images()
    model, other = (ResNet(18, CLASSES, engine=engine, seed=seed) for seed in (1, 2))
    np.testing.assert_array_equal(model.logits(other.send(images)), model.logits(images))
    grey = ResNet(18, CLASSES, channels=1, engine=engine)
    found = message(model.logits, grey.send(images[..., :1]))
    assert found.startswith("images: found 1 channels, as sent with another model, expected 3; send them")
    scaled = ResNet(18, CLASSES, engine=engine, mean=[0.5] * 3, std=[0.2] * 3).send(images / 255)
    assert "expected pixels from 0 to 255" in message(model.logits, scaled)


def test_images_and_weights_of_another_engine_are_one_line(engine, wide_engine):
    model, other = (ResNet(18, CLASSES, engine=each) for each in (engine, wide_engine))
    found = message(model.logits, other.send(random_images()))
    assert found.startswith("images: found those that are in another engine, expected this model's")
    weights = model.weights
    found = message(setattr, model, "weights", other.weights)
    assert found.startswith("weights: found a handle of another engine, expected one of this one")
    assert model.weights is weights
    found = message(engine.run, "y = length(x)", {"x": other.weights}, {"y": "int"})
    assert found.startswith("x: found a handle of another engine")


def test_a_dataset_of_arrays_takes_whole_numbers_of_any_type():
    images = ArrayDataset(random_images().astype(np.int32), PLAIN, ["a", "b", "c"], mean=[1] * 3, std=[1] * 3)
    assert images.image(0, 0).dtype == np.uint8 and images.labels.tolist() == PLAIN
    found = message(
        ArrayDataset, random_images().astype(np.int32) + 1, PLAIN, list("abc"), mean=[1] * 3, std=[1] * 3
    )
    assert found.startswith("images: found int32 of shape (4, 32, 40, 3), expected uint8")


# Labels


ONE_HOT = np.eye(CLASSES)[PLAIN]


@pytest.mark.parametrize(
    "given",
    [
        PLAIN,
        tuple(PLAIN),
        pd.Series(PLAIN, index=[7, 3, 1, 0]),
        pd.Series(PLAIN, dtype="Int64"),
        pd.Series(PLAIN, dtype="category"),
        np.array(PLAIN, dtype=object),
        np.array(PLAIN, dtype=np.uint8),
        np.array(PLAIN, dtype=np.float32),
        np.array(PLAIN)[:, None],
        torch.tensor(PLAIN),
        ONE_HOT,
        ONE_HOT.astype(int),
        ONE_HOT.astype(bool),
        ONE_HOT.tolist(),
        pd.get_dummies(pd.Series(PLAIN)),
    ],
)
def test_labels_that_are_plain_are_taken(given):
    found = class_labels(given, 4, CLASSES)
    assert found.dtype == np.int64 and found.tolist() == PLAIN


def test_truth_values_are_labels_of_two_classes():
    assert class_labels([True, False], 2, 2).tolist() == [1, 0]
    assert message(class_labels, [True, False], 2, 3).endswith("truth values tell two classes apart, not 3")


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (
            [0, 1, 2],
            "labels: found int64 of shape (3,), expected integers of shape (4,); give one for each image",
        ),
        ([0, 1, 2, 3], "labels: found 3 at position 3, expected whole numbers from 0 to 2; correct them"),
        (
            [1, 2, 3, 1],
            "labels: found 3 at position 2, expected whole numbers from 0 to 2; subtract 1 from all",
        ),
        ([0, 1, -1, 2], "labels: found -1 at position 2"),
        ([0, 1, 0.5, 2], "labels: found 0.5 at position 2"),
        ([0, 1, np.nan, 2], "labels: found nan at position 2"),
        ([0, 1, np.inf, 2], "labels: found inf at position 2"),
        ([0, 1, None, 2], "labels: found object of shape (4,)"),
        (pd.Series([0, 1, None, 2], dtype="Int64"), "labels: found"),
        (["cat", "dog", "cat", "cat"], "labels: found <U3 of shape (4,), expected integers"),
        ([0, 1, 2**62, 2], "labels: found 4.61169e+18 at position 2"),
        ([0, 1, 3_000_000_000, 2], "labels: found 3e+09 at position 2"),
        ([[0, 1], [2], [0], [1]], "labels: found list that is no array"),
        ([], "labels: found float64 of shape (0,)"),
        (None, "labels: found object of shape ()"),
        (np.full((4, 3), 1 / 3), "labels: found float64 of shape (4, 3) whose row 0 is not one-hot"),
        (np.array([[1, 0, 0], [0, 1, 0], [0, 0, 0], [0, 0, 1]]), "whose row 2 is not one-hot"),
        (np.array([[1, 0, 0], [0, 1, 1], [0, 1, 0], [0, 0, 1]]), "whose row 1 is not one-hot"),
        (np.eye(4), "labels: found float64 of shape (4, 4), expected integers of shape (4,)"),
        (np.array([[0, 1, 0.25]] * 4), "whose row 0 is not one-hot"),  # not taken for mixed labels
    ],
)
def test_labels_that_are_none_are_one_line(given, found):
    assert found in message(class_labels, given, 4, CLASSES)


def test_labels_of_mixed_images_have_a_type_of_their_own():
    images, labels = random_images(4), np.array(PLAIN)
    _, mixed = Mixing(mixup=0.4).apply(images, labels, 0, 0, 0)
    assert isinstance(mixed, MixedLabels) and len(mixed) == 4
    y = check_labels(mixed, 4, CLASSES)
    np.testing.assert_array_equal(y[:, :2], np.column_stack([labels, np.roll(labels, 1)]) + 1)
    np.testing.assert_array_equal(y[:, 2], mixed.share)
    np.testing.assert_array_equal(check_labels(mixed[1:], 3, CLASSES), y[1:])
    assert check_labels(PLAIN, 4, CLASSES).tolist() == [[3], [1], [2], [2]]


@pytest.mark.parametrize("given", [ONE_HOT, np.array(PLAIN)[:, None], PLAIN, torch.tensor(PLAIN)])
def test_evaluation_takes_each_form_of_labels_for_the_same(engine, given):
    model = ResNet(18, CLASSES, engine=engine)
    assert model.evaluate(random_images(), given) == model.evaluate(random_images(), np.array(PLAIN))


def test_training_takes_each_form_of_labels_for_the_same(engine):
    settings = dict(epochs=1, batch_size=4, warmup_epochs=0, base_lr=0.1, optimizer="sgd")
    tables = []
    for images, labels in (
        (random_images(), np.array(PLAIN)),
        (random_images().astype(int).tolist(), ONE_HOT),
    ):
        model = ResNet(18, CLASSES, engine=engine)
        tables.append(model.fit(images, labels, validation=(images, labels), **settings))
        loss = -np.log(model.predict_proba(random_images()))[np.arange(4), PLAIN].mean()
        assert_close(tables[-1]["val_loss"].to_numpy(), np.array([loss]), 1e-9)
    for column in ("train_loss", "val_loss", "val_top1"):
        assert tables[0][column].tolist() == tables[1][column].tolist()
