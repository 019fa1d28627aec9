"""What training starts from: which final layers of weights are kept, and what is said of it."""

from types import SimpleNamespace

import numpy as np
import pytest
from narrow import STEM, narrow_resnet
from reference import arrays
from refusals import message

from sysds_resnet.network.weights.files import describe, write_weights
from sysds_resnet.training.start import starting_model

NAMES = ["blue", "green", "red"]


@pytest.fixture(scope="module")
def weights():
    return arrays(narrow_resnet(18, num_classes=3))


def start(engine, path, classes=NAMES):
    """The final layer's weights and what is said of where they come from."""
    settings = SimpleNamespace(init_from=path, depth=18, model="resnet18", seed=1, zero_init_residual=False)
    dataset = SimpleNamespace(
        classes=classes, num_classes=len(classes), channels=3, mean=np.ones(3), std=np.ones(3)
    )
    model, origin = starting_model(settings, dataset, engine)
    assert model.classes == classes
    return model.state_dict()["fc.weight"], origin


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        (["green", "red", "yellow"], "found 'green' for class 0, expected 'blue'"),
        (["green", "blue", "red"], "found 'green' for class 0, expected 'blue' as in the weights, where"),
        (["Blue", "green", "red"], "found 'Blue' for class 0, expected 'blue', which is class 0"),
        (["one", "two", "three"], "found 'one' for class 0, expected 'blue'"),
        (["blue", "green"], "2 classes for its 3"),
        (NAMES, None),
    ],
)
def test_a_final_layer_for_other_classes_is_replaced_and_that_is_said(engine, weights, folder, classes, said):
    path = folder / "w.safetensors"
    write_weights(path, weights, metadata=describe({"classes": NAMES}))
    layer, origin = start(engine, path, classes)
    assert np.array_equal(layer, weights["fc.weight"]) == (said is None)
    assert origin == str(path) if said is None else ("but for a new final layer" in origin and said in origin)


def test_a_final_layer_without_names_is_kept_and_a_note_says_so(engine, weights, folder, capsys):
    write_weights(folder / "w.safetensors", weights)
    layer, origin = start(engine, folder / "w.safetensors")
    np.testing.assert_array_equal(layer, weights["fc.weight"])
    assert origin == str(folder / "w.safetensors")
    assert "has no class names; its final layer is taken to be" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("head", "said"),
    [
        ({}, "3 classes for a backbone without one"),
        (
            {"fc.0.weight": (8, 8 * STEM), "fc.0.bias": (8,), "fc.2.weight": (3, 8), "fc.2.bias": (3,)},
            "for its 'fc.0'",
        ),
        ({"head.weight": (3, 8 * STEM)}, "for its 'head'"),
    ],
)
def test_training_starts_from_backbones(engine, weights, folder, head, said):
    backbone = {name: array for name, array in weights.items() if not name.startswith("fc.")}
    write_weights(folder / "w.safetensors", backbone | {name: np.ones(shape) for name, shape in head.items()})
    layer, origin = start(engine, folder / "w.safetensors")
    assert layer.shape == (3, 8 * STEM) and "but for a new final layer" in origin and said in origin


def test_the_only_linear_layer_is_the_final_one_whatever_its_name(engine, weights, folder, capsys):
    renamed = {name.replace("fc.", "last_linear."): array for name, array in weights.items()}
    write_weights(folder / "w.safetensors", renamed)
    layer, _ = start(engine, folder / "w.safetensors")
    np.testing.assert_array_equal(layer, weights["fc.weight"])
    assert "took the linear layer 'last_linear'" in capsys.readouterr().err


def test_other_networks_are_refused(engine, weights, folder):
    wide = weights | {"layer1.0.conv1.weight": np.ones((128, 64, 3, 3))}
    write_weights(folder / "w.safetensors", wide)
    assert "no ResNeXt, no wide one" in message(start, engine, folder / "w.safetensors")
