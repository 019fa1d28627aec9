"""Files of weights: formats in and out, exactness, and writes that fail."""

import os

import numpy as np
import pytest
import safetensors.numpy
import torch
import transformers
from reference import ResNet, arrays, random_resnet
from refusals import message
from small_weights import assert_same, small
from transformers_reference import hf_model

from sysds_resnet.network.weights import files as module
from sysds_resnet.network.weights.files import read_weights, write_weights

pytestmark = pytest.mark.usefixtures("wide")


@pytest.fixture(scope="module")
def resnet18():
    return random_resnet(18, num_classes=3)


def assert_same_logits(left, right, channels=3):
    images = torch.randn(2, channels, 32, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        a, b = left(images), right(images)
    a, b = (getattr(x, "logits", x) for x in (a, b))
    assert 1e-3 < a.abs().max() < np.inf
    assert (a - b).abs().max() <= 1e-12 * a.abs().max()


# Round trips


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_safetensors_round_trip_is_bit_exact(folder, dtype):
    weights = small(dtype) | {
        "bn1.num_batches_tracked": np.array(7),
        "odd": np.array([np.nan, -0.0, np.inf], dtype),
    }
    write_weights(folder / "new" / "w.safetensors", weights, metadata={"epoch": "3"})
    assert_same(read_weights(folder / "new" / "w.safetensors"), weights)
    with safetensors.safe_open(folder / "new" / "w.safetensors", "np") as file:
        assert file.metadata() == {"format": "pt", "epoch": "3"}
    assert os.listdir(folder / "new") == ["w.safetensors"]


def test_views_and_big_endian_arrays_are_written_by_value(folder):
    array = np.arange(24.0).reshape(4, 6)
    views = {"t": array.T, "s": array[::2, ::-1], "b": array.astype(">f8")}
    write_weights(folder / "w.safetensors", views)
    back = read_weights(folder / "w.safetensors")
    for name in views:
        np.testing.assert_array_equal(back[name], views[name])


def test_arrays_can_be_changed_in_place(folder):
    write_weights(folder / "w.safetensors", small())
    torch.save({"a": torch.zeros(2)}, folder / "w.pt")
    for path in (folder / "w.safetensors", folder / "w.pt"):
        for array in read_weights(path).values():
            array += 1


def test_file_mode_follows_the_umask(folder):
    write_weights(folder / "w.safetensors", small())
    (folder / "plain").touch()
    assert (folder / "w.safetensors").stat().st_mode == (folder / "plain").stat().st_mode


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_bfloat16_becomes_the_same_values_in_float32(folder, suffix):
    from safetensors.torch import save_file

    tensor = torch.randn(3, 4).to(torch.bfloat16)
    path = folder / f"w{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)({"fc.weight": tensor}, path)
    read = read_weights(path)["fc.weight"]
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, tensor.float().numpy())


LOGIT_DEPTHS = [18, 50, *(pytest.param(depth, marks=pytest.mark.long) for depth in (34, 101, 152))]


@pytest.mark.parametrize("depth", LOGIT_DEPTHS)
def test_transformers_loads_our_folder_and_gives_the_reference_logits(folder, depth):
    reference = random_resnet(depth, num_classes=3, channels=2)
    weights = arrays(reference)
    write_weights(folder / "hf", weights, layout="huggingface")
    model, info = transformers.ResNetForImageClassification.from_pretrained(
        folder / "hf", dtype=torch.float64, local_files_only=True, output_loading_info=True
    )
    assert not any(info.values()), info
    assert model.config.num_labels == 3 and model.config.num_channels == 2
    assert_same_logits(reference, model.eval(), channels=2)
    assert_same(read_weights(folder / "hf"), weights)
    assert_same(read_weights(folder / "hf" / "model.safetensors"), weights)


@pytest.mark.parametrize("depth", LOGIT_DEPTHS)
def test_reference_loads_what_transformers_saved_and_gives_its_logits(folder, depth):
    torch.manual_seed(0)
    model = hf_model(depth).double().eval()
    model.save_pretrained(folder / "hf")
    reference = ResNet(depth, 3).double().eval()
    state = {name: torch.from_numpy(array) for name, array in read_weights(folder / "hf").items()}
    reference.load_state_dict(state, strict=True)
    assert_same_logits(reference, model)


def test_counters_are_not_needed_on_either_side(folder, resnet18):
    weights = {n: a for n, a in arrays(resnet18).items() if not n.endswith("num_batches_tracked")}
    write_weights(folder / "hf", weights, layout="huggingface")
    model, info = transformers.ResNetForImageClassification.from_pretrained(
        folder / "hf", dtype=torch.float64, local_files_only=True, output_loading_info=True
    )
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert_same_logits(resnet18, model.eval())
    write_weights(folder / "w.safetensors", weights)
    assert_same(read_weights(folder / "w.safetensors"), weights)
    state = {name: torch.from_numpy(array) for name, array in weights.items()}
    ResNet(18, 3).load_state_dict(state, strict=True)


# Writing


@pytest.mark.parametrize("broken", ["replace", "fsync", "save_file"])
@pytest.mark.parametrize("layout", ["torchvision", "huggingface"])
def test_failed_write_leaves_the_old_files(folder, resnet18, monkeypatch, broken, layout):
    path = folder if layout == "huggingface" else folder / "w.safetensors"
    old = arrays(resnet18)
    write_weights(path, old, layout=layout)
    before = sorted(os.listdir(folder))

    def fail(*args):
        raise OSError(28, "No space left on device")

    def fail_midway(tensors, temp, *args):
        temp.write_bytes(b"half")
        fail()

    monkeypatch.setattr(*((module, broken, fail_midway) if broken == "save_file" else (os, broken, fail)))
    text = message(write_weights, path, {n: a * 0 for n, a in old.items()}, layout=layout)
    assert "No space left" in text
    assert sorted(os.listdir(folder)) == before
    assert_same(read_weights(path), old)


def test_an_interrupted_write_leaves_no_temporary_file(folder, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_weights(folder / "w.safetensors", small())
    assert os.listdir(folder) == []


def test_what_cannot_be_written_is_named(folder):
    assert "'.pth'" in message(write_weights, folder / "w.pth", small())
    assert "'a' has dtype complex128" in message(
        write_weights, folder / "w.safetensors", {"a": np.ones(2) * 1j}
    )
    assert "'caffe'" in message(write_weights, folder, small(), layout="caffe")
    assert "ResNet" in message(write_weights, folder / "hf", {"a": np.ones(2)}, layout="huggingface")
    (folder / "file").touch()
    assert "cannot be written" in message(write_weights, folder / "file" / "w.safetensors", small())
    assert os.listdir(folder) == ["file"]
