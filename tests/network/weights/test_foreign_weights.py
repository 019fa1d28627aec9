"""Weights from elsewhere: files of PyTorch, whose code is never run, and files that are damaged or wrong."""

import builtins
import json
import os
import zipfile

import numpy as np
import pytest
import safetensors.numpy
import torch
from reference import arrays, random_resnet
from refusals import message
from small_weights import assert_same

from sysds_resnet.network.names import (
    to_huggingface,
)
from sysds_resnet.network.weights.files import read_weights, write_weights

pytestmark = pytest.mark.usefixtures("wide")


@pytest.fixture(scope="module")
def resnet18():
    return random_resnet(18, num_classes=3)


# PyTorch files


@pytest.mark.parametrize(
    "wrap", [lambda s: s, lambda s: {"state_dict": s, "epoch": 3}, lambda s: {"model": s}]
)
@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("zipped", [True, False])
def test_pth_is_read_whatever_its_wrapping(folder, wrap, prefix, zipped):
    state = {"conv1.weight": torch.randn(2, 3, 4).transpose(0, 1), "bn1.num_batches_tracked": torch.tensor(3)}
    saved = wrap({prefix + name: tensor for name, tensor in state.items()})
    torch.save(saved, folder / "w.pth", _use_new_zipfile_serialization=zipped)
    assert_same(read_weights(folder / "w.pth"), {name: t.contiguous().numpy() for name, t in state.items()})


def test_pth_with_huggingface_names_is_renamed(folder, resnet18):
    state = {n: torch.from_numpy(a) for n, a in to_huggingface(arrays(resnet18)).items()}
    torch.save(state, folder / "w.pt")
    assert_same(read_weights(folder / "w.pt"), arrays(resnet18))


class Malicious:
    def __init__(self, function, argument):
        self.call = (function, (argument,))

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("function", [os.system, builtins.exec])
def test_malicious_pth_is_refused_and_not_run(folder, function, zipped):
    marker = folder / "marker"
    code = f"touch {marker}" if function is os.system else f"open({str(marker)!r}, 'w').close()"
    content = {"conv1.weight": torch.ones(2), "x": Malicious(function, code)}
    torch.save(content, folder / "w.pth", _use_new_zipfile_serialization=zipped)
    text = message(read_weights, folder / "w.pth")
    assert not marker.exists()
    assert function.__name__ in text and "might run code" in text
    torch.load(folder / "w.pth", weights_only=False)
    assert marker.exists(), "the file must be able to do harm, or this test shows nothing"


def test_pth_without_torch_says_what_to_install(folder, monkeypatch):
    (folder / "w.pth").write_bytes(b"PK\x03\x04")
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    assert "-m pip install 'torch>=" in message(read_weights, folder / "w.pth")


def test_pth_is_refused_by_a_torch_that_reads_it_unsafely(folder, monkeypatch):
    torch.save({"a": torch.ones(1)}, folder / "w.pth")
    monkeypatch.setattr(torch, "__version__", "2.9.1+cpu")
    assert "pip install 'torch>=2.10'" in message(read_weights, folder / "w.pth")


def test_pth_of_something_else_is_named(folder):
    for content, found in [
        (torch.ones(2), "holds a Tensor"),
        ({"epoch": 3}, "'epoch' is a int"),
        ({3: torch.ones(1)}, "3 is a Tensor"),
        ({"a": torch.eye(2).to_sparse()}, "'a' is no dense tensor"),
        ({}, "no tensors"),
    ]:
        torch.save(content, folder / "w.pth")
        assert found in message(read_weights, folder / "w.pth")


# Damaged and foreign files


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt"])
def test_damaged_files_are_one_line_errors(folder, suffix):
    path = folder / f"w{suffix}"
    weights = {"conv1.weight": torch.randn(100, 10), "fc.bias": torch.zeros(3)}
    if suffix == ".safetensors":
        write_weights(path, {name: tensor.numpy() for name, tensor in weights.items()})
    else:
        torch.save(weights, path, _use_new_zipfile_serialization=suffix == ".pth")
    whole = path.read_bytes()
    for size in (0, 1, 7, 9, 40, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        text = message(read_weights, path)
        assert str(path) in text and ("damaged" in text or "empty" in text)
    path.write_bytes(b"this is no weights file\n" * 100)
    assert "damaged" in message(read_weights, path)


def test_a_flipped_bit_in_a_pth_is_found(folder):
    torch.save({"a": torch.randn(1000)}, folder / "w.pth")
    with zipfile.ZipFile(folder / "w.pth") as archive:
        start = archive.getinfo("w/data/0").header_offset
    content = bytearray((folder / "w.pth").read_bytes())
    content[start + 1000] ^= 1
    (folder / "w.pth").write_bytes(content)
    assert "CRC" in message(read_weights, folder / "w.pth") or "checksum" in message(
        read_weights, folder / "w.pth"
    )


def test_wrong_places_and_kinds_are_named(folder):
    assert "No such file" in message(read_weights, folder / "none.safetensors")
    assert "model.safetensors: is missing" in message(read_weights, folder)
    (folder / "w.dat").write_bytes(b"x")
    assert "'.dat'" in message(read_weights, folder / "w.dat")
    (folder / "w.pth").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    assert "git lfs pull" in message(read_weights, folder / "w.pth")
    safetensors.numpy.save_file({}, folder / "w.safetensors")
    assert "no tensors" in message(read_weights, folder / "w.safetensors")
    (folder / "w.safetensors").write_bytes(safetensors.numpy.save({"a": np.ones(2, bool)}))
    assert "'a' has dtype BOOL" in message(read_weights, folder / "w.safetensors")


def test_a_line_break_in_a_name_stays_on_one_line(folder):
    path = folder / "a\nb.safetensors"
    assert "a b.safetensors" in message(read_weights, path)


@pytest.mark.parametrize("key", ["downsample_in_bottleneck", "downsample_in_first_stage"])
def test_huggingface_models_with_other_strides_are_refused(folder, resnet18, key):
    write_weights(folder, arrays(resnet18), layout="huggingface")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {key: True}))
    assert f"{key} is True" in message(read_weights, folder)
    (folder / "config.json").write_text("[1]")
    assert "config.json: cannot be read" in message(read_weights, folder)
