"""Folders of Hugging Face and timm as they are read: what their JSON files say, and what does not fit."""

import json

import numpy as np
import pytest
from refusals import message
from small_weights import resnet18
from transformers_reference import CONFIG, PROCESSOR, write_folder

from sysds_resnet.network.names import to_huggingface
from sysds_resnet.network.weights.files import load_file

pytestmark = pytest.mark.usefixtures("wide")


@pytest.fixture(scope="module")
def small():
    return {name: np.ascontiguousarray(array) for name, array in resnet18().items()}


def test_names_mean_std_and_sizes_come_from_a_folder(folder, small):
    config = CONFIG | {"id2label": {"2": "ant", "0": "cat", "1": "bee"}}
    write_folder(folder, to_huggingface(small), config)
    _, metadata, notes = load_file(folder)
    assert metadata == {
        "classes": ["cat", "bee", "ant"], "mean": [127.5] * 3, "std": [63.75] * 3,
        "image_size": [64, 64], "resize_size": 73,
    }  # fmt: skip
    assert not notes
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": PROCESSOR | {"size": 32}}))
    assert load_file(folder / "model.safetensors").metadata["image_size"] == [32, 32]


def test_placeholders_are_no_names_and_a_missing_processor_is_noted(folder, small):
    config = CONFIG | {"id2label": {str(i): f"LABEL_{i}" for i in range(3)}}
    _, metadata, [note] = load_file(write_folder(folder, to_huggingface(small), config, None))
    assert metadata == {} and "preprocessor_config.json: is missing" in note


def test_placeholders_in_another_order_are_names(folder, small):
    config = CONFIG | {"id2label": {str(i): f"LABEL_{2 - i}" for i in range(3)}}
    assert load_file(write_folder(folder, small, config)).metadata["classes"] == [
        "LABEL_2",
        "LABEL_1",
        "LABEL_0",
    ]


@pytest.mark.parametrize(
    "config", [CONFIG | {"model_type": "custom"}, {"id2label": CONFIG["id2label"]}, None]
)
def test_folders_with_torchvisions_names_are_read_as_well(folder, small, config):
    write_folder(folder, small, config)
    if config is None:
        (folder / "config.json").unlink()
    _, metadata, notes = load_file(folder)
    names = {} if config is None else {"classes": ["ant", "bee", "cat"]}
    assert not notes and metadata == names | {
        "mean": [127.5] * 3, "std": [63.75] * 3, "image_size": [64, 64], "resize_size": 73,
    }  # fmt: skip


def test_a_name_of_the_inverse_table_alone_is_noted(folder, small):
    config = CONFIG | {"label2id": {"ant": 0, "LABEL_1": 1}}
    _, _, [note] = load_file(write_folder(folder, to_huggingface(small), config))
    assert "label2id has 'LABEL_1', which id2label does not have" in note


def test_a_name_that_two_classes_have_is_noted(folder, small):
    config = CONFIG | {"id2label": {"0": "crane", "1": "bee", "2": "crane"}}
    _, metadata, [note] = load_file(write_folder(folder, to_huggingface(small), config))
    assert metadata["classes"] == ["crane (0)", "bee", "crane (2)"] and "'crane'" in note


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (
            {"id2label": {"0": "a", "1": "b", "3": "c"}},
            "config.json: id2label has no class 2, expected 0 to 2",
        ),
        ({"id2label": {"0": "a", "1": "b"}}, "id2label has 2 classes, expected 3"),
        ({"id2label": {"0": "a", "1": "b", "2": 3}}, "id2label['2'] is 3, expected a name"),
        ({"id2label": {"0": "a", "1": "b", "x": "c"}}, "id2label has the key 'x'"),
        ({"id2label": {"0": "a", "-1": "b", "1": "c"}}, "id2label has the key '-1'"),
        ({"id2label": ["a", "b", "c"]}, "id2label is ['a', 'b', 'c']"),
        (
            {"id2label": None, "label2id": {"a": 0, "b": 0, "c": 1}},
            "label2id gives the number '0' to two names",
        ),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"model_type": "regnet"}, "model_type is 'regnet'"),
        ({"problem_type": "multi_label_classification"}, "problem_type is multi_label"),
        ({"label2id": {"ant": 2, "bee": 1, "cat": 0}}, "label2id['ant'] is 2, expected 0 as in id2label"),
    ],
)
def test_a_config_that_does_not_fit_is_named(folder, small, change, found):
    write_folder(folder, to_huggingface(small), CONFIG | change)
    assert found in message(load_file, folder)


@pytest.mark.parametrize(
    ("processor", "found"),
    [
        ("[1]", "preprocessor_config.json: cannot be read"),
        ("{", "preprocessor_config.json: cannot be read"),
        (PROCESSOR | {"image_mean": [0.5, float("nan"), 0.5]}, "image_mean[1] is nan"),
        (PROCESSOR | {"image_mean": [0.5, 0.4]}, "image_mean has 2 values, expected 3"),
        (PROCESSOR | {"image_std": [0.5, 0.5, 0.0]}, "image_std is [0.5, 0.5, 0.0]"),
        (PROCESSOR | {"image_std": "grey"}, "image_std is 'grey'"),
        (PROCESSOR | {"size": {"shortest_edge": 40000}}, "is 40000"),
        (PROCESSOR | {"size": -1}, "size is -1"),
        (PROCESSOR | {"size": {"edge": 64}}, "size is {'edge': 64}"),
        (PROCESSOR | {"size": "224"}, "size is '224'"),
        (PROCESSOR | {"crop_pct": 0}, "crop_pct is 0"),
        (PROCESSOR | {"rescale_factor": 0}, "rescale_factor is 0"),
        (PROCESSOR | {"resample": 9}, "resample is 9"),
        (PROCESSOR | {"do_normalize": "yes"}, "do_normalize is 'yes'"),
        (PROCESSOR | {"do_flip_channel_order": True}, "do_flip_channel_order is True"),
        (PROCESSOR | {"do_grayscale": True}, "do_grayscale is True"),
        (PROCESSOR | {"rescale_offset": True}, "rescale_offset is True"),
        (PROCESSOR | {"image_mean": [123.7] * 3}, "image_mean is [123.7, 123.7, 123.7] and image_std [0.25"),
        (
            {"image_processor_type": "OwnImageProcessor", "size": 64},
            "image_mean is missing and OwnImageProcessor's",
        ),
    ],
)
def test_a_processor_that_is_none_is_named(folder, small, processor, found):
    write_folder(folder, to_huggingface(small), CONFIG, processor)
    assert found in message(load_file, folder)


# timm's folders


TIMM = {
    "architecture": "resnet18",
    "num_classes": 3,
    "pretrained_cfg": {"mean": [0.5] * 3, "std": [0.25] * 3, "input_size": [3, 64, 64], "crop_pct": 0.875},
    "label_names": ["cat", "bee", "ant"],
}


@pytest.mark.parametrize(
    "architecture", ["resnet18", "tv_resnet50", "gluon_resnet50_v1b", "resnet50.a1_in1k"]
)
def test_timms_folders_are_read(folder, small, architecture):
    write_folder(folder, small, TIMM | {"architecture": architecture}, None)
    _, metadata, notes = load_file(folder)
    assert metadata == {
        "classes": ["cat", "bee", "ant"], "mean": [127.5] * 3, "std": [63.75] * 3,
        "image_size": [64, 64], "resize_size": 73,
    }  # fmt: skip
    assert not notes


@pytest.mark.parametrize(
    ("processor", "said"),
    [
        (PROCESSOR, []),
        (PROCESSOR | {"size": 128}, ["image_size is [128, 128] by it, but [64, 64] by config.json"]),
        (
            PROCESSOR | {"image_std": [0.2] * 3},
            ["std is [51.0, 51.0, 51.0] by it, but [63.75, 63.75, 63.75]"],
        ),
    ],
)
def test_timms_description_goes_before_a_processor_that_differs(folder, small, processor, said):
    _, metadata, notes = load_file(write_folder(folder, small, TIMM, processor))
    assert metadata["std"] == [63.75] * 3 and metadata["image_size"] == [64, 64]
    assert len(notes) == len(said) and all(text in note for text, note in zip(said, notes, strict=True))
    bare = {"architecture": "resnet18"}  # which says nothing of pixels
    assert load_file(write_folder(folder, small, bare, PROCESSOR)).metadata["image_size"] == [64, 64]


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"architecture": "resnet50d"}, "architecture is 'resnet50d'"),
        ({"architecture": "resnetaa50"}, "architecture is 'resnetaa50'"),
        ({"architecture": 50}, "architecture is 50"),
        ({"global_pool": "max"}, "global_pool is 'max'"),
        ({"model_args": {"act_layer": "silu"}}, "model_args has 'act_layer'"),
        ({"label_names": ["a"]}, "label_names has 1 classes, expected 3"),
        ({"label_names": ["a", 2, "c"]}, "label_names[1] is 2"),
        ({"label_names": 3}, "label_names is 3"),
        ({"pretrained_cfg": [1]}, "pretrained_cfg: holds [1]"),
        ({"pretrained_cfg": TIMM["pretrained_cfg"] | {"mean": [0.5]}}, "as many means as stds"),
        ({"pretrained_cfg": TIMM["pretrained_cfg"] | {"std": [0.0] * 3}}, "std[0] is 0.0"),
        ({"pretrained_cfg": TIMM["pretrained_cfg"] | {"input_size": [3, 7, 7]}}, "image_size[0] is 7"),
        ({"pretrained_cfg": TIMM["pretrained_cfg"] | {"crop_pct": "1"}}, "crop_pct is '1'"),
    ],
)
def test_a_folder_of_timms_that_does_not_fit_is_named(folder, small, change, found):
    write_folder(folder, small, TIMM | change, None)
    assert found in message(load_file, folder)
