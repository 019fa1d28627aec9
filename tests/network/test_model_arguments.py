"""What a model and its training are given: taken where it is plain what is meant, and otherwise one line."""

import re

import numpy as np
import pandas as pd
import pytest
import torch
from four_images import CLASSES, PLAIN, random_images
from refusals import message

from sysds_resnet import ResNet
from sysds_resnet.images import IMAGENET_MEAN
from sysds_resnet.network.preprocessing import check_normalization
from sysds_resnet.network.weights.files import read_metadata
from sysds_resnet.training.fitting import settings_elsewhere
from sysds_resnet.training.settings import TrainSettings

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
def test_arguments_of_the_model_that_are_none_are_one_line(wide_engine, given, found):
    text = message(ResNet, **{"depth": 18, "num_classes": CLASSES, "engine": wide_engine, **given})
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
    assert {"dataset", "flip", "max_bad", "model", "heap", "processes", "out", "config"} <= set(refused)
    assert len(refused) == 54


def test_parts_that_are_not_to_be_trained_are_not(engine):
    model = ResNet(18, CLASSES, engine=engine)
    before = model.state_dict()
    model.fit(random_images(), PLAIN, epochs=1, batch_size=4, warmup_epochs=0, base_lr=0.1, freeze="layer4")
    after = model.state_dict()
    same = {name for name in before if np.array_equal(before[name], after[name])}
    assert {"conv1.weight", "layer4.1.conv2.weight"} <= same and not {"fc.weight", "fc.bias"} & same
