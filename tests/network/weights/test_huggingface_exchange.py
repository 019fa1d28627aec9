"""Networks into Hugging Face folders and out of them, against transformers' own models and pipeline."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
import transformers
from command_line import assert_one_line_error, run_here
from narrow import narrow_resnet
from PIL import Image
from reference import arrays
from transformers_reference import BESIDE, CONFIG, PROCESSOR, even_picture, theirs, write_folder

from sysds_resnet import ResNet as Model
from sysds_resnet.network.names import to_huggingface
from sysds_resnet.network.weights.files import describe, read_weights, write_weights
from sysds_resnet.network.weights.forms import load_weights


@pytest.fixture(scope="module")
def picture():
    return even_picture()


@pytest.fixture(scope="module")
def reference():
    return narrow_resnet(18, num_classes=3)


@pytest.fixture
def source(reference, folder):
    write_weights(folder / "source.safetensors", arrays(reference), metadata=describe(BESIDE))
    return folder / "source.safetensors"


# Out


@pytest.mark.usefixtures("shared")
def test_transformers_pipeline_gives_the_names_and_probabilities_that_predict_gives(
    capfd, source, folder, picture
):
    """Images are in FP32 there and in FP64 here; that of the right size has the same pixels, the other nearly
    (resizing may be a level of 255 from Pillow's, here and there)."""
    outcome = run_here(capfd, "convert", source, folder / "hf", "--to", "huggingface")
    assert (outcome.code, outcome.err) == (0, "")
    assert sorted(path.name for path in (folder / "hf").iterdir()) == [
        "README.md", "config.json", "model.safetensors", "preprocessor_config.json",
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
