"""Hugging Face folders: what their JSON files say, against transformers' own processors and pipeline."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
import transformers
from command_line import assert_one_line_error, run_here
from PIL import Image
from reference import arrays, random_resnet
from safetensors.numpy import save_file
from sklearn.datasets import load_sample_image
from small_weights import message, resnet18

from sysds_resnet import ResNet as Model
from sysds_resnet.images.pixels.decode import Picture
from sysds_resnet.images.pixels.transforms import eval_transform
from sysds_resnet.network.names import to_huggingface
from sysds_resnet.network.weights.files import describe, load_file, read_weights, write_weights
from sysds_resnet.network.weights.forms import load_weights
from sysds_resnet.network.weights.image_processors import from_pretrained_cfg, from_processor, to_processor

BESIDE = {
    "mean": [100.0, 110.0, 120.0],
    "std": [50.0, 55.0, 60.0],
    "classes": ["red ant", "bée", "cat"],
    "image_size": [64, 64],
    "resize_size": 80,
}
CONFIG = {"model_type": "resnet", "id2label": {"0": "ant", "1": "bee", "2": "cat"}}
PROCESSOR = {
    "size": {"shortest_edge": 64},
    "crop_pct": 0.875,
    "resample": 2,
    "image_mean": [0.5] * 3,
    "image_std": [0.25] * 3,
}


@pytest.fixture(scope="module")
def picture():
    """A photograph whose sides are even at all the sizes below, so that crops are the same to the pixel."""
    return np.ascontiguousarray(load_sample_image("china.jpg")[:426, :568])


def ours(picture, metadata):
    """What this project's network sees, of shape (3, H, W)."""
    pixels = eval_transform(Picture(picture, "p"), metadata["image_size"][0], metadata["resize_size"])
    return ((pixels - np.array(metadata["mean"])) / metadata["std"]).transpose(2, 0, 1)


def theirs(picture, config):
    name = config.get("image_processor_type", "ConvNextImageProcessor")
    processor = getattr(transformers, name)(
        **{k: v for k, v in config.items() if k != "image_processor_type"}
    )
    return processor(Image.fromarray(picture), return_tensors="np")["pixel_values"][0]


# What networks see


@pytest.mark.parametrize(
    "config",
    [
        {"size": {"shortest_edge": 64}, "resample": 2},
        {"size": {"shortest_edge": 70}, "crop_pct": 0.875, "resample": 2},
        PROCESSOR,
        PROCESSOR | {"do_normalize": False},
        PROCESSOR
        | {"do_rescale": False, "image_mean": [100.0, 110.0, 120.0], "image_std": [50.0, 55.0, 60.0]},
        PROCESSOR | {"rescale_factor": 1 / 128},
        {
            "image_processor_type": "BitImageProcessor",
            "size": {"shortest_edge": 80},
            "crop_size": {"height": 64, "width": 64},
            "resample": 2,
        },
        to_processor(BESIDE, 3),
        to_processor({}, 3),
    ],
)
def test_images_are_those_of_transformers_processors(picture, config):
    metadata, notes = from_processor(config, 3, "p.json")
    assert not notes
    found, expected = ours(picture, metadata), theirs(picture, config)
    assert found.shape == expected.shape
    # resizing may be a level of 255 from Pillow's, and theirs is too
    assert np.abs(found - expected).max() <= 2.01 / min(metadata["std"])
    assert np.abs(found - expected).mean() <= 0.3 / min(metadata["std"])


@pytest.mark.parametrize("backend", ["torchvision", "pil"])
def test_images_that_need_no_resizing_are_the_same_to_rounding(picture, backend):
    small = picture[:80, :120]
    config = to_processor(BESIDE, 3)
    name = "BitImageProcessor" + ("Pil" if backend == "pil" else "")
    processor = getattr(transformers, name)(
        **{k: v for k, v in config.items() if k != "image_processor_type"}
    )
    expected = processor(Image.fromarray(small), return_tensors="np")["pixel_values"][0]
    np.testing.assert_allclose(ours(small, BESIDE), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("size", "sizes"),
    [
        (64, (64, 73)),
        ({"shortest_edge": 64}, (64, 73)),
        ({"shortest_edge": 224, "longest_edge": None}, (224, 256)),
    ],
)
def test_sizes_in_each_form(size, sizes):
    metadata, notes = from_processor(PROCESSOR | {"size": size}, 3, "p")
    assert (metadata["image_size"], metadata["resize_size"]) == ([sizes[0]] * 2, sizes[1]) and not notes


@pytest.mark.parametrize(
    ("change", "said", "sizes"),
    [
        ({"resample": 3}, "resample 3 is bicubic", (64, 73)),
        ({"size": {"height": 64, "width": 64}}, "squashed to 64 x 64", (64, 64)),
        ({"size": [64, 64]}, "squashed to 64 x 64", (64, 64)),
        ({"size": 384}, "squashed to 384 x 384", (384, 384)),
        ({"size": {"height": 64, "width": 96}}, "size is 64 x 96, and images are square here", None),
        ({"do_resize": False}, "do_resize is false", None),
        ({"do_pad": True}, "do_pad is True, which is not done here", (64, 73)),
        ({"do_sharpen": True, "do_blur": False}, "do_sharpen is True", (64, 73)),
        (
            {"image_processor_type": "BitImageProcessor", "do_center_crop": False},
            "do_center_crop is false",
            (64, 64),
        ),
        ({"feature_extractor_type": "ViTFeatureExtractor", "size": 64}, "squashed to 64 x 64", (64, 64)),
        (
            {"image_processor_type": "CLIPImageProcessor", "do_center_crop": True, "crop_size": [64, 32]},
            "64 x 32",
            None,
        ),
    ],
)
def test_what_cannot_be_followed_exactly_is_noted(change, said, sizes):
    metadata, [note] = from_processor(PROCESSOR | change, 3, "p.json")
    assert note.startswith("p.json: ") and said in note
    assert metadata["mean"] == [127.5] * 3 and metadata["std"] == [63.75] * 3
    if sizes is None:
        assert "image_size" not in metadata
    else:
        assert (metadata["image_size"], metadata["resize_size"]) == ([sizes[0]] * 2, sizes[1])


def test_timms_settings_are_followed():
    config = {
        "mean": [0.5] * 3,
        "std": [0.25] * 3,
        "input_size": [3, 64, 64],
        "crop_pct": 0.95,
        "interpolation": "bicubic",
    }
    metadata, [note] = from_pretrained_cfg(config, "c")
    assert metadata == {
        "mean": [127.5] * 3, "std": [63.75] * 3, "image_size": [64, 64], "resize_size": 67,
    }  # fmt: skip
    assert "interpolation is bicubic" in note


@pytest.fixture(scope="module")
def small():
    return {name: np.ascontiguousarray(array) for name, array in resnet18().items()}


def write_folder(folder, weights, config, processor=PROCESSOR):
    folder.mkdir(exist_ok=True)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    if processor is not None:
        (folder / "preprocessor_config.json").write_text(
            processor if isinstance(processor, str) else json.dumps(processor)
        )
    return folder


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


# Out


@pytest.fixture(scope="module")
def reference():
    return random_resnet(18, num_classes=3)


@pytest.fixture
def source(reference, folder):
    write_weights(folder / "source.safetensors", arrays(reference), metadata=describe(BESIDE))
    return folder / "source.safetensors"


@pytest.mark.usefixtures("shared")
def test_transformers_pipeline_gives_the_names_and_probabilities_that_predict_gives(
    capfd, source, folder, picture
):
    """Images are in FP32 there and in FP64 here; that of the right size has the same pixels, the other nearly
    (resizing may be a level of 255 from Pillow's, here and there)."""
    outcome = run_here(capfd, "convert", source, folder / "hf", "--to", "huggingface")
    assert (outcome.code, outcome.err) == (0, "")
    assert sorted(path.name for path in (folder / "hf").iterdir()) == [
        "config.json", "model.safetensors", "preprocessor_config.json",
    ]  # fmt: skip
    assert sorted(path.name for path in folder.iterdir()) == ["hf", "source.safetensors"]
    assert {array.dtype for array in read_weights(folder / "hf").values()} == {np.dtype("f4"), np.dtype("i8")}
    paths = [folder / "same.png", folder / "larger.png"]
    Image.fromarray(picture[100:180, 100:240]).save(paths[0])
    Image.fromarray(picture).save(paths[1])
    pipeline = transformers.pipeline("image-classification", str(folder / "hf"), top_k=3)
    flags = ["--input", *paths, "--out", folder / "p.csv", "--top", 3]
    for weights in (source, folder / "hf"):
        assert run_here(capfd, "predict", "--weights", weights, *flags).code == 0
        table = pd.read_csv(folder / "p.csv")
        for row, path, tolerance in zip(table.to_dict("records"), paths, (1e-5, 2e-2), strict=True):
            expected = {found["label"]: found["score"] for found in pipeline(str(path))}
            found = {row[f"label_{i}"]: row[f"prob_{i}"] for i in (1, 2, 3)}
            assert found.keys() == set(BESIDE["classes"])
            assert found == pytest.approx(expected, abs=tolerance)


@pytest.mark.usefixtures("shared")
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_a_folder_and_back_loses_nothing(capfd, source, folder, dtype):
    flags = ["--to", "huggingface", "--dtype", dtype]
    assert run_here(capfd, "convert", source, folder / "hf", *flags).code == 0
    config = json.loads((folder / "hf" / "config.json").read_text())
    assert config["torch_dtype"] == dtype and list(config["id2label"].values()) == BESIDE["classes"]
    weights, metadata, notes = load_weights(folder / "hf")
    assert metadata == BESIDE and not notes
    expected = read_weights(source)
    assert weights.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(
            weights[name], array if array.dtype.kind == "i" else array.astype(dtype)
        )


def test_transformers_own_copy_of_a_folder_loses_nothing_but_rounding(source, folder):
    write_weights(folder / "hf", read_weights(source), layout="huggingface", metadata=describe(BESIDE))
    model = transformers.ResNetForImageClassification.from_pretrained(folder / "hf", local_files_only=True)
    processor = transformers.AutoImageProcessor.from_pretrained(folder / "hf", local_files_only=True)
    model.save_pretrained(folder / "copy")
    processor.save_pretrained(folder / "copy")
    _, metadata, notes = load_weights(folder / "copy")
    assert not notes
    for name in ("mean", "std"):
        np.testing.assert_allclose(metadata.pop(name), BESIDE[name], rtol=1e-12)
    assert metadata == {name: BESIDE[name] for name in ("classes", "image_size", "resize_size")}


def test_files_that_were_changed_go_before_the_header(source, folder):
    write_weights(folder / "hf", read_weights(source), layout="huggingface", metadata=describe(BESIDE))
    config = json.loads((folder / "hf" / "config.json").read_text())
    config["id2label"] = {"0": "x", "1": "y", "2": "z"}
    (folder / "hf" / "config.json").write_text(json.dumps(config))
    assert load_weights(folder / "hf").metadata["classes"] == ["x", "y", "z"]


@pytest.mark.usefixtures("shared")
def test_a_folder_that_is_there_is_left_alone(capfd, source, folder, monkeypatch):
    (folder / "hf").mkdir()
    (folder / "hf" / "mine").touch()
    outcome = run_here(capfd, "convert", source, folder / "hf", "--to", "huggingface")
    assert_one_line_error(outcome, folder / "hf", "choose another")
    assert [path.name for path in (folder / "hf").iterdir()] == ["mine"]


@pytest.mark.usefixtures("shared")
def test_a_folder_is_there_as_a_whole_or_not_at_all(capfd, source, folder, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sysds_resnet.network.weights.files.save_file", fail)
    outcome = run_here(capfd, "convert", source, folder / "hf", "--to", "huggingface")
    assert_one_line_error(outcome, "No space left on device")
    assert [path.name for path in folder.iterdir()] == ["source.safetensors"]


# Use


@pytest.mark.usefixtures("shared")
def test_classes_in_another_order_are_refused_by_evaluation(capfd, reference, folder):
    config = CONFIG | {"id2label": {"0": "cat", "1": "bee", "2": "ant"}}
    write_folder(folder / "hf", to_huggingface(arrays(reference)), config)
    for name in ("ant", "bee", "cat"):
        (folder / "data" / name).mkdir(parents=True)
        Image.new("RGB", (80, 80)).save(folder / "data" / name / "1.png")
    outcome = run_here(capfd, "evaluate", "--weights", folder / "hf", "--dataset", folder / "data")
    assert_one_line_error(outcome, "found 'ant' for class 0, expected 'cat' as in", "where 'ant' is class 2")


@pytest.mark.usefixtures("shared")
def test_networks_see_images_as_the_folder_says(capfd, reference, folder, picture):
    write_folder(folder / "hf", to_huggingface(arrays(reference)), CONFIG)
    Image.fromarray(picture[:73, :100]).save(folder / "1.png")
    flags = ["--input", folder / "1.png", "--out", folder / "p.csv", "--logits", folder / "l.npy"]
    outcome = run_here(capfd, "predict", "--weights", folder / "hf", *flags)
    assert (outcome.code, outcome.err) == (0, "")
    pixels = theirs(np.asarray(Image.open(folder / "1.png")), PROCESSOR)
    with torch.no_grad():
        expected = reference(torch.from_numpy(pixels).double()[None]).numpy()
    np.testing.assert_allclose(np.load(folder / "l.npy"), expected, rtol=1e-4, atol=1e-5)


def test_a_model_from_python_has_what_comes_with_the_folder(engine, reference, folder):
    write_folder(folder / "hf", to_huggingface(arrays(reference)), CONFIG, PROCESSOR | {"resample": 3})
    with pytest.warns(UserWarning, match="resample 3 is bicubic"):
        model = Model.load(folder / "hf", engine)
    assert model.classes == ["ant", "bee", "cat"]
    assert (model.mean.tolist(), model.std.tolist()) == ([[127.5] * 3], [[63.75] * 3])
