"""Final layers of other names, of other kinds and left out: which are taken, and what is said of others."""

import numpy as np
import pytest
from refusals import message
from small_weights import resnet18

from sysds_resnet.network.names import infer_architecture, is_body, rename_head
from sysds_resnet.network.weights.files import load_file

pytestmark = pytest.mark.usefixtures("wide")


@pytest.mark.parametrize(
    "name", ["head", "classifier", "last_linear", "fc.1", "head.fc", "linear", "classifier.1"]
)
def test_one_linear_layer_of_another_name_is_the_final_layer(name):
    found, [note] = rename_head(resnet18(head=name), "w.pth")
    assert infer_architecture(found).num_classes == 3
    assert f"took the linear layer {name!r} for the final layer" in note


def two_layers(weights):
    weights |= {"fc.0.weight": np.ones((8, 512)), "fc.0.bias": np.ones(8)}
    return weights | {"fc.2.weight": np.ones((3, 8)), "fc.2.bias": np.ones(3)}


def wrong_features(weights):
    return weights | {"head.weight": np.ones((3, 100)), "head.bias": np.ones(3)}


def no_bias(weights):
    return weights | {"head.weight": np.ones((3, 512))}


@pytest.mark.parametrize("change", [two_layers, wrong_features, no_bias])
def test_other_final_parts_are_not_taken_for_one_layer(change):
    weights = change(resnet18(head=None))
    found, notes = rename_head(weights, "w.pth")
    assert found is weights and not notes
    text = message(infer_architecture, found, "w.pth")
    assert "fc.weight is missing" in text and "its final part is" in text and "--init-from" in text


def test_a_backbone_alone_says_what_it_is_good_for():
    text = message(infer_architecture, resnet18(head=None), "w.pth")
    assert "it is a backbone alone" in text and "--init-from" in text


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"layer1.0.conv1.weight": np.ones((128, 64, 3, 3))}, "no ResNeXt, no wide one"),
        ({"conv1.0.weight": np.ones((32, 3, 3, 3))}, "a stem of several convolutions"),
        ({"conv1.weight": np.ones((64, 3, 3, 3))}, "(64, 3, 3, 3), expected (64, any, 7, 7)"),
    ],
)
@pytest.mark.parametrize("head", ["fc", None])
def test_other_networks_are_still_named(change, found, head):
    assert found in message(infer_architecture, resnet18(head=head) | change, "w.pth")


def test_huggingface_backbones_are_read(folder):
    from transformers import ResNetConfig, ResNetModel

    config = ResNetConfig(
        hidden_sizes=[64, 128, 256, 512], depths=[2, 2, 2, 2], layer_type="basic", embedding_size=64
    )
    ResNetModel(config).save_pretrained(folder / "hf")
    weights = load_file(folder / "hf").weights
    assert all(map(is_body, weights)) and "layer4.1.bn2.running_var" in weights
