"""What stands beside weights: checked whatever wrote it, and taken from every form that has it."""

import argparse
import json

import numpy as np
import pytest
import torch
from refusals import message
from safetensors.numpy import save_file
from small_weights import resnet18

from sysds_resnet.network.weights.files import load_file, read_metadata
from sysds_resnet.network.weights.metadata import METADATA_KEY, check_metadata, tell_apart

pytestmark = pytest.mark.usefixtures("wide")

SOUND = {
    "mean": [100.0, 110.0, 120.0],
    "std": [50.0, 55.0, 60.0],
    "classes": ["ant", "bee", "cat"],
    "image_size": [64, 64],
    "resize_size": 73,
}


@pytest.fixture(scope="module")
def arrays():
    return {name: np.ascontiguousarray(array) for name, array in resnet18().items()}


@pytest.fixture(scope="module")
def tensors(arrays):
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def test_sound_metadata_pass_and_unknown_fields_stay():
    assert check_metadata(SOUND, "w") == SOUND
    assert check_metadata({"epoch": 3, "classes": None}, "w") == {"epoch": 3, "classes": None}
    assert check_metadata({"image_size": 64}, "w") == {"image_size": [64, 64]}
    assert check_metadata({}, "w") == {}


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"mean": [float("nan"), 1.0, 1.0]}, "mean[0] is nan"),
        ({"mean": [1.0, float("inf"), 1.0]}, "mean[1] is inf"),
        ({"mean": "grey"}, "mean is 'grey'"),
        ({"mean": [True, 1.0, 1.0]}, "mean[0] is True"),
        ({"mean": ["1", 1.0, 1.0]}, "mean[0] is '1'"),
        ({"mean": [[1.0], 1.0, 1.0]}, "mean[0] is [1.0]"),
        ({"mean": 3.0}, "mean is 3.0"),
        ({"mean": [1e9, 1.0, 1.0]}, "mean[0] is 1000000000.0"),
        ({"mean": [1.0]}, "as many means as stds (found 1 and 3)"),
        ({"mean": None}, "mean and std together"),
        ({"std": [0.0, 1.0, 1.0]}, "std[0] is 0.0"),
        ({"std": [1.0, -1.0, 1.0]}, "std[1] is -1.0"),
        ({"image_size": 40000}, "is 40000"),
        ({"image_size": [224]}, "a height and a width"),
        ({"image_size": [-224, 224]}, "image_size[0] is -224"),
        ({"image_size": [224.5, 224]}, "image_size[0] is 224.5"),
        ({"image_size": "224"}, "image_size is '224'"),
        ({"image_size": True}, "image_size is True"),
        ({"resize_size": 0}, "resize_size is 0"),
        ({"resize_size": [256]}, "resize_size is [256]"),
        ({"classes": ["a", "b", "a"]}, "classes expected each name once (found 'a' twice)"),
        ({"classes": [1, 2, 3]}, "classes[0] is 1"),
        ({"classes": ["a", "", "b"]}, "classes[1] is ''"),
        ({"classes": "abc"}, "classes is 'abc'"),
        ({"classes": {"0": "a"}}, "classes is {'0': 'a'}"),
        ({"classes": []}, "classes expected a name for each class"),
    ],
)
def test_metadata_that_are_none_are_named(folder, change, found):
    text = message(check_metadata, SOUND | change, "w")
    assert text.startswith("w: ") and found in text and "expected" in text
    header = {METADATA_KEY: json.dumps(SOUND | change)}
    save_file({"conv1.weight": np.ones(1)}, folder / "w.safetensors", header)
    for read in (load_file, read_metadata):
        assert found in message(read, folder / "w.safetensors")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "cannot be read"),
        ("{", "cannot be read"),
        ("[1]", "cannot be read (it is [1])"),
        ('"text"', "cannot be read (it is 'text')"),
        ("null", "cannot be read (it is None)"),
        ("[" * 100_000, "nested too deeply"),
        ('{"mean": ' * 100_000, "nested too deeply"),
        ('{"a": ' + "1" * 5000 + "}", "cannot be read"),
        ('{"a": "' + "x" * (17 << 20) + '"}', "bytes of JSON, expected at most"),
    ],
)
def test_text_that_is_no_json_object_is_named(folder, text, found):
    save_file({"conv1.weight": np.ones(1)}, folder / "w.safetensors", {METADATA_KEY: text})
    for read in (load_file, read_metadata):
        assert found in message(read, folder / "w.safetensors")


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"classes": ["a", "b"]}, "classes has 2 values, expected 3"),
        ({"mean": [1.0], "std": [1.0]}, "mean has 1 values, expected 3"),
    ],
)
def test_metadata_of_another_network_are_named(folder, arrays, change, found):
    save_file(arrays, folder / "w.safetensors", {METADATA_KEY: json.dumps(SOUND | change)})
    assert found in message(load_file, folder / "w.safetensors")


def test_control_characters_of_names_do_not_reach_a_message():
    text = message(check_metadata, {"classes": ["\x1b[31m", "\x1b[31m"]}, "w")
    assert "\x1b" not in text and r"\x1b" in text


def test_names_that_are_there_twice_get_their_numbers():
    assert tell_apart(["crane", "bee", "crane"], "id2label", "w") == (
        ["crane (0)", "bee", "crane (2)"],
        ["w: id2label calls classes 0 and 2 'crane'; here they are 'crane (0)' and 'crane (2)'"],
    )


# Checkpoints of other programs

NAMES = ["ant", "bee", "cat"]


@pytest.mark.parametrize(
    "beside",
    [
        {"classes": NAMES},
        {"class_names": tuple(NAMES)},
        {"meta": {"categories": NAMES}},
        {"class_to_idx": {"cat": 2, "ant": 0, "bee": 1}},
        {"idx_to_class": {2: "cat", 0: "ant", 1: "bee"}},
        {"id2label": {"2": "cat", "0": "ant", "1": "bee"}},
        {"hyper_parameters": {"class_to_idx": {"cat": 2, "ant": 0, "bee": 1}, "classes": 3}},
        {"args": argparse.Namespace(classes=NAMES)},
        {"classes": NAMES, "hyper_parameters": {"class_to_idx": {"cat": 2, "ant": 0, "bee": 1}}},
        {"meta": {"CLASSES": tuple(NAMES)}},
        {"meta": {"dataset_meta": {"classes": NAMES}}},
    ],
)
def test_class_names_come_with_a_checkpoint(folder, tensors, beside):
    for content in ({"state_dict": tensors, "epoch": 3, **beside}, {**tensors, **beside}):
        torch.save(content, folder / "w.ckpt")
        loaded = load_file(folder / "w.ckpt")
        assert loaded.metadata == {"classes": NAMES} and not loaded.notes


@pytest.mark.parametrize(
    ("beside", "found"),
    [
        ({"classes": ["a", 1, "b"]}, "classes has 1 in it"),
        ({"classes": ["a", "b"]}, "classes has 2 values, expected 3"),
        ({"class_to_idx": {"a": 0, "b": 0, "c": 1}}, "class_to_idx gives the number '0' to two names"),
        ({"class_to_idx": {"a": 1, "b": 2, "c": 3}}, "class_to_idx has no class 0"),
        ({"class_to_idx": {"a": 0.5, "b": 1, "c": 2}}, "class_to_idx has the key 0.5"),
        (
            {"classes": NAMES, "class_to_idx": {"cat": 0, "ant": 1, "bee": 2}},
            "class_to_idx names other classes",
        ),
        ({"mean": [1, 2], "std": [1, 2]}, "mean has 2 values, expected 3"),
        ({"mean": "x", "std": [1]}, "mean is 'x'"),
        ({"mean": [0.5] * 3, "std": [0.0] * 3}, "std[0] is 0.0"),
        ({"image_size": 7}, "is 7"),
        ({"image_size": "large"}, "image_size is 'large'"),
        ({"arch": "resnetblur18"}, "arch is 'resnetblur18', expected a plain ResNet"),
        ({"args": argparse.Namespace(model="resnet50d")}, "args: model is 'resnet50d'"),
        ({"args": argparse.Namespace(gp="max")}, "args: gp is 'max', expected 'avg'"),
        ({"args": argparse.Namespace(bn_eps=1e-3)}, "args: bn_eps is 0.001, expected 1e-05"),
        (
            {"classes": NAMES, "args": {"classes": NAMES[::-1]}},
            "args: it names other classes than another entry",
        ),
    ],
)
def test_metadata_of_a_checkpoint_that_are_none_are_named(folder, tensors, beside, found):
    torch.save({"state_dict": tensors, **beside}, folder / "w.pth")
    assert found in message(load_file, folder / "w.pth")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"mean": "imagenet", "std": "imagenet"}, "mean is 'imagenet'"),
        ({"mean": [0.5, 0.5], "std": [1, 1]}, "mean has 2 values, expected 3"),
        ({"mean": 0.0, "std": 0.0}, "std[0] is 0.0"),
        ({"classes": [0, 1, 2]}, "classes has 0 in it"),
        ({"classes": []}, "classes is []"),
        ({"classes": ["a", "b"]}, "classes has 2 values, expected 3"),
        ({"image_size": 28}, "image_size[0] is 28"),
        ({"img_size": {"height": 64}}, "image_size is {'height': 64}"),
        ({"image_size": [64, 96]}, "image_size is 64 x 96, and images are square here"),
        ({"pretrained_cfg": {"crop_pct": "large"}}, "crop_pct is 'large'"),
    ],
)
@pytest.mark.parametrize("place", ["hyper_parameters", "args"])
def test_settings_of_programs_that_cannot_be_used_are_noted(folder, tensors, place, settings, said):
    beside = {place: argparse.Namespace(**settings) if place == "args" else settings}
    torch.save({"state_dict": tensors, "arch": "BaseResNet18_dropout", **beside}, folder / "w.pth")
    _, metadata, [note] = load_file(folder / "w.pth")
    assert metadata == {} and note.startswith(f"{folder / 'w.pth'}, {place}") and said in note


@pytest.mark.parametrize(
    "size", [64, 64.0, "64", (64, 64), [64, 64], torch.tensor(64), torch.tensor([64, 64])]
)
@pytest.mark.parametrize("place", ["hyper_parameters", None])
def test_a_size_in_any_form(folder, tensors, size, place):
    beside = {"image_size": size, "resize_size": 73.0}
    torch.save({"state_dict": tensors} | ({place: beside} if place else beside), folder / "w.pth")
    assert load_file(folder / "w.pth")[1:] == ({"image_size": [64, 64], "resize_size": 73}, [])


@pytest.mark.parametrize(
    ("settings", "resize_size"),
    [
        ({"input_size": [3, 64, 64], "crop_pct": 0.9}, 71),
        ({"input_size": (3, 64, 64), "crop_pct": None, "img_size": None}, 73),
        ({"img_size": 64, "crop_pct": 0.9, "input_size": 784}, 71),
    ],
)
def test_sizes_come_with_the_checkpoints_of_timms_scripts(folder, tensors, settings, resize_size):
    sizes = {"image_size": [64, 64], "resize_size": resize_size}
    args = argparse.Namespace(model="resnet18", gp=None, bn_eps=None, interpolation="bicubic", **settings)
    torch.save({"state_dict": tensors, "args": args}, folder / "w.pth")
    _, metadata, [note] = load_file(folder / "w.pth")
    assert metadata == sizes and "interpolation is bicubic" in note


def test_timms_description_may_have_tuples(folder, tensors):
    config = {"mean": (0.5,) * 3, "std": (0.25,) * 3, "input_size": (3, 64, 64), "crop_pct": 0.9}
    torch.save({"state_dict": tensors, "pretrained_cfg": config}, folder / "w.pth")
    sizes = {"image_size": [64, 64], "resize_size": 71}
    assert load_file(folder / "w.pth").metadata == {"mean": [127.5] * 3, "std": [63.75] * 3, **sizes}


def test_one_mean_is_that_of_all_channels(folder, tensors):
    torch.save({"state_dict": tensors, "args": argparse.Namespace(mean=0.5, std=0.25)}, folder / "w.pth")
    assert load_file(folder / "w.pth").metadata == {"mean": [127.5] * 3, "std": [63.75] * 3}


@pytest.mark.parametrize("shape", [(3,), (3, 1, 1), (1, 3, 1, 1)])
@pytest.mark.parametrize("header", [None, {"format": "pt"}])
def test_mean_and_std_may_be_tensors_of_the_file(folder, arrays, shape, header):
    pixels = {"mean": np.full(shape, 0.5, "f4"), "std": np.full(shape, 0.25, "f4")}
    save_file(arrays | pixels, folder / "w.safetensors", header)
    _, metadata, [note] = load_file(folder / "w.safetensors")
    assert metadata == {"mean": [127.5] * 3, "std": [63.75] * 3} and "units of 0..1" in note
    save_file(arrays | pixels, folder / "w.safetensors", {METADATA_KEY: json.dumps(SOUND)})
    assert load_file(folder / "w.safetensors")[1:] == (SOUND, [])


@pytest.mark.parametrize(("layer", "body"), [("", ""), ("data_preprocessor.", ""), ("0.", "1.")])
def test_mean_and_std_may_be_tensors_of_a_layer(folder, tensors, layer, body):
    pixels = {f"{layer}mean": torch.full((3, 1, 1), 128.0), f"{layer}std": torch.full((3, 1, 1), 64.0)}
    network = {body + name: tensor for name, tensor in tensors.items()}
    torch.save({"state_dict": network | pixels}, folder / "w.pth")
    weights, metadata, notes = load_file(folder / "w.pth")
    assert metadata == {"mean": [128.0] * 3, "std": [64.0] * 3} and weights.keys() == tensors.keys()
    assert len(notes) == bool(body)


def test_sizes_come_with_the_checkpoints_of_torchvisions_scripts(folder, tensors):
    args = argparse.Namespace(val_crop_size=224, val_resize_size=232, train_crop_size=176, lr=0.5)
    torch.save(
        {"model": tensors, "model_ema": {"n_averaged": torch.tensor(1), **tensors}, "args": args},
        folder / "w.pth",
    )
    assert load_file(folder / "w.pth").metadata == {"image_size": [224, 224], "resize_size": 232}


@pytest.mark.parametrize(
    ("mean", "std", "scale", "guessed"),
    [
        ([0.5, 0.25, 0.125], (0.2, 0.4, 0.8), 255, True),
        (torch.tensor([100.0, 110.0, 120.0]), [50.0, 60.0, 70.0], 1, False),
    ],
)
def test_mean_and_std_come_in_either_unit(folder, tensors, mean, std, scale, guessed):
    torch.save({"state_dict": tensors, "mean": mean, "std": std}, folder / "w.pth")
    _, metadata, notes = load_file(folder / "w.pth")
    np.testing.assert_allclose(metadata["mean"], scale * np.array(list(map(float, mean))))
    np.testing.assert_allclose(metadata["std"], scale * np.array(std))
    assert [("0..1" in note) for note in notes] == [True] * guessed
