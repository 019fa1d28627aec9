"""ONNX files, run by ONNX Runtime and read by the onnx package, against this project and PyTorch in FP64."""

import json
import os
import sys

import numpy as np
import pytest
import torch
from disk_faults import fail
from narrow import narrow_resnet
from reference import arrays, random_resnet
from refusals import message
from small_models import random_images

from sysds_resnet.network.model import Model
from sysds_resnet.network.registry import Network
from sysds_resnet.network.weights.onnx_files import write_onnx

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

BESIDE = {
    "mean": [100.0, 110.0, 120.0],
    "std": [50.0, 55.0, 60.0],
    "classes": ["red ant", "bée", "cat"],
    "image_size": [64, 64],
    "resize_size": 80,
}
DEPTHS = [18, 34, 50, 101, 152]


def exported(folder, engine, reference, metadata=BESIDE, takes="pixels"):
    """An ONNX file of a reference's weights, and the model of them on an engine."""
    described = {name: metadata.get(name) for name in ("mean", "std", "classes")}
    model = Model.from_state_dict(arrays(reference), engine, **described)
    write_onnx(folder / "w.onnx", arrays(reference), model.network, metadata, "runs/w", takes)
    return folder / "w.onnx", model


def by_runtime(path, pixels):
    """ONNX Runtime's outputs for pixels of shape (N, H, W, C)."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    [given] = session.get_inputs()
    return session.run(None, {given.name: pixels.transpose(0, 3, 1, 2).astype(np.float32)})


def by_torch(reference, pixels, metadata):
    scaled = (pixels - np.array(metadata["mean"])) / np.array(metadata["std"])
    with torch.no_grad():
        return reference(torch.from_numpy(scaled.transpose(0, 3, 1, 2))).numpy()


def assert_alike(found, expected):
    """Within 1e-5 of the largest logit."""
    assert found.shape == expected.shape and found.dtype == np.float32
    assert np.abs(expected).max() > 0.1
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


def metadata_of(path):
    model = onnx.load(path)
    return {entry.key: json.loads(entry.value) for entry in model.metadata_props}


# Scores


@pytest.mark.parametrize(
    "depth", [pytest.param(n, marks=[pytest.mark.long] if n > 50 else []) for n in DEPTHS]
)
def test_onnx_runtime_gives_the_logits_of_this_project_and_of_pytorch(folder, engine, depth):
    reference = narrow_resnet(depth, num_classes=3)
    path, model = exported(folder, engine, reference)
    images = random_images(4, 64, 64)
    [logits] = by_runtime(path, images)
    assert_alike(logits, model.logits(images))
    assert_alike(logits, by_torch(reference, images, BESIDE))


@pytest.mark.long
@pytest.mark.parametrize("depth", DEPTHS)
def test_real_networks_have_the_same_logits_in_fp32(folder, wide_engine, wide, depth):
    reference = random_resnet(depth, num_classes=1000)
    metadata = {"mean": BESIDE["mean"], "std": BESIDE["std"]}
    network = Network(wide_engine, depth, 3, 1000)
    write_onnx(folder / "w.onnx", arrays(reference), network, metadata, "w")
    images = random_images(2, 224, 224)
    [logits] = by_runtime(folder / "w.onnx", images)
    assert_alike(logits, by_torch(reference, images, metadata))


@pytest.mark.parametrize(("channels", "classes"), [(1, 2), (4, 7)])
def test_networks_of_other_channels_and_classes_have_the_same_logits(folder, engine, channels, classes):
    reference = narrow_resnet(18, classes, channels)
    metadata = {"mean": [90.0] * channels, "std": [40.0 + i for i in range(channels)]}
    path, model = exported(folder, engine, reference, metadata)
    images = random_images(2, channels=channels)
    assert_alike(by_runtime(path, images)[0], model.logits(images))


@pytest.mark.parametrize("n", [1, 5])
@pytest.mark.parametrize(("height", "width"), [(32, 32), (33, 70)])
def test_any_number_and_size_of_images_is_taken(folder, engine, n, height, width):
    reference = narrow_resnet(50, num_classes=3)
    path, _ = exported(folder, engine, reference)
    images = random_images(n, height, width)
    assert_alike(by_runtime(path, images)[0], by_torch(reference, images, BESIDE))


def test_normalized_pixels_are_taken_where_asked_for(folder, engine):
    reference = narrow_resnet(18, num_classes=3)
    path, model = exported(folder, engine, reference, takes="normalized")
    images = random_images(2)
    scaled = (images - np.array(BESIDE["mean"])) / np.array(BESIDE["std"])
    assert_alike(by_runtime(path, scaled)[0], model.logits(images))
    low, high = metadata_of(path)["input_range"]
    assert (low, high) == (pytest.approx(-2.0), pytest.approx((255 - 100) / 50))
    assert metadata_of(path)["input"] == onnx.load(path).graph.input[0].name == "normalized"


# What is in a file


def test_a_file_passes_all_checks_and_needs_no_new_program(folder, engine):
    path, _ = exported(folder, engine, narrow_resnet(50, num_classes=3))
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 13)]
    assert model.ir_version == 7
    assert [output.name for output in model.graph.output] == ["logits"]
    [given] = model.graph.input
    assert [size.dim_param or size.dim_value for size in given.type.tensor_type.shape.dim] == [
        "batch",
        3,
        "height",
        "width",
    ]
    assert "pixels from 0 to 255" in given.doc_string and "64 x 64" in given.doc_string


def test_a_file_says_what_its_input_and_classes_are(folder, engine):
    path, _ = exported(folder, engine, narrow_resnet(18, num_classes=3))
    assert metadata_of(path) == BESIDE | {"input": "pixels", "input_range": [0.0, 255.0], "source": "runs/w"}


def test_what_weights_do_not_come_with_is_imagenets(folder, engine):
    path, _ = exported(folder, engine, narrow_resnet(18, num_classes=3), metadata={})
    described = metadata_of(path)
    assert "classes" not in described
    np.testing.assert_allclose(described["mean"], 255 * np.array([0.485, 0.456, 0.406]))
    assert (described["image_size"], described["resize_size"]) == ([224, 224], 256)


def test_tensors_have_torchvisions_names_and_the_numbers_of_the_weights(folder, engine):
    reference = narrow_resnet(50, num_classes=3)
    path, _ = exported(folder, engine, reference)
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
    for name, array in arrays(reference).items():
        if not name.endswith("num_batches_tracked"):
            np.testing.assert_array_equal(stored.pop(name), array.astype(np.float32))
    assert stored.keys() == {"mean", "std"}


# Refusals


def test_what_cannot_be_written_is_one_line_and_leaves_no_file(folder, engine, monkeypatch):
    reference = narrow_resnet(18, num_classes=3)
    model = Model.from_state_dict(arrays(reference), engine)

    def refused(name="w.onnx", metadata=BESIDE):
        arguments = (arrays(reference), model.network, metadata, "w")
        text = message(write_onnx, folder / name, *arguments)
        assert os.listdir(folder) == []
        return text

    assert "has extension '.pb', expected .onnx" in refused("w.pb")
    assert "found 2 names, expected 3" in refused(metadata={"classes": ["a", "b"]})
    assert "found shape (2,)" in refused(metadata={"mean": [1.0, 2.0], "std": [1.0, 2.0]}).replace(
        "float64 of ", "found "
    )
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail(28))
        assert "cannot be written (no space left on device)" in refused()
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "onnx", None)
        assert "extra 'onnx'" in refused()
    with monkeypatch.context() as patch:
        patch.setattr("sysds_resnet.network.weights.onnx_files._MOST_BYTES", 1000)
        assert "expected less than 2 GiB" in refused()
