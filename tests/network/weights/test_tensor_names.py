"""Names of tensors here and in Hugging Face, the network that they show, and tensors that do not fit it."""

import numpy as np
import pytest
import torch
from reference import ResNet, arrays, random_resnet
from refusals import message
from small_weights import small
from transformers_reference import hf_model

from sysds_resnet.network.names import (
    STAGES,
    Architecture,
    check_tensors,
    from_huggingface,
    infer_architecture,
    to_huggingface,
)

pytestmark = pytest.mark.usefixtures("wide")


@pytest.fixture(scope="module")
def resnet18():
    return random_resnet(18, num_classes=3)


# Names


@pytest.mark.parametrize("depth", STAGES)
def test_huggingface_names_and_shapes_are_those_of_transformers(depth):
    with torch.device("meta"):
        ours = {n: np.empty(t.shape, "i1") for n, t in ResNet(depth, 3).state_dict().items()}
        theirs = {n: tuple(t.shape) for n, t in hf_model(depth).state_dict().items()}
    renamed = to_huggingface(ours)
    assert {name: array.shape for name, array in renamed.items()} == theirs
    back = from_huggingface(renamed)
    assert list(back) == list(ours)
    assert all(back[name] is ours[name] for name in ours)
    assert infer_architecture(ours) == Architecture(depth, 3, 3)


def test_renaming_refuses_a_foreign_tensor():
    assert "'layer1.0.se.weight'" in message(to_huggingface, {"layer1.0.se.weight": np.ones(1)})
    assert "'resnet.pooler.x'" in message(from_huggingface, {"resnet.pooler.x": np.ones(1)}, "some.file")


def test_architecture_reads_channels_and_classes(resnet18):
    assert infer_architecture(arrays(random_resnet(18, 7, channels=1))) == Architecture(18, 1, 7)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda w: w.clear(), "no tensors"),
        (lambda w: [w.pop(n) for n in list(w) if n.startswith("layer")], "'conv1.weight'"),
        (lambda w: [w.pop(n) for n in list(w) if n.startswith("layer4.1.")], "basic blocks (2, 2, 2, 1)"),
        (
            lambda w: w.update({"conv1.weight": np.ones((64, 3, 3, 3))}),
            "(64, 3, 3, 3), expected (64, any, 7, 7)",
        ),
        (lambda w: w.update({"layer1.0.conv1.weight": np.ones((128, 64, 3, 3))}), "(128, 64, 3, 3)"),
        (lambda w: w.update({"fc.weight": np.ones((3, 100))}), "fc.weight has shape (3, 100)"),
        (lambda w: w.pop("fc.weight"), "fc.weight is missing"),
    ],
)
def test_what_is_no_known_resnet_is_named(resnet18, change, found):
    weights = arrays(resnet18)
    change(weights)
    text = message(infer_architecture, weights, "x.pth")
    assert text.startswith("x.pth: ") and found in text


# Checking


def test_fitting_tensors_pass_and_counters_are_ignored():
    expected = {name: array.shape for name, array in small().items()}
    check_tensors(small() | {"bn1.num_batches_tracked": np.array(1)}, expected, "w")
    check_tensors(small(np.float16), expected, "w")


def test_negative_variances_are_named():
    text = message(check_tensors, {"bn1.running_var": np.array([1, -0.5])}, {"bn1.running_var": (2,)}, "w")
    assert "bn1.running_var has the negative variance -0.5, expected none below 0" in text


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"fc.bias": None}, "fc.bias is missing, expected shape (5,)"),
        ({"fc.bias": np.ones(6)}, "fc.bias has shape (6,), expected (5,)"),
        ({"fc.bias": np.ones(5, int)}, "fc.bias has dtype int64"),
        ({"fc.bias": np.array([1, np.nan, 1, np.inf, 1])}, "fc.bias has 2 NaN or infinite values of 5"),
        ({"extra": np.ones(1)}, "'extra' is unexpected"),
        ({"a\nb": np.ones(1)}, r"'a\nb' is unexpected"),
        (
            {"fc.bias": None, "x": np.ones(1), "y": np.ones(1)},
            "fc.bias is missing, expected shape (5,) (and 2 more",
        ),
    ],
)
def test_the_first_tensor_that_does_not_fit_is_named(change, found):
    weights = {n: a for n, a in (small() | change).items() if a is not None}
    text = message(check_tensors, weights, {n: a.shape for n, a in small().items()}, "w.safetensors")
    assert text.startswith("w.safetensors: " + found)
