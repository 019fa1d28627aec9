"""Kinds of files that hold weights, and those that hold something else."""

import json
import os

import numpy as np
import pytest
import torch
from refusals import message
from safetensors.numpy import save_file
from small_weights import tiny

from sysds_resnet.network.weights.containers import FOLDER_FILES
from sysds_resnet.network.weights.files import load_file, read_metadata
from sysds_resnet.network.weights.forms import load_weights

pytestmark = pytest.mark.usefixtures("wide")


def assert_read(path):
    weights = load_file(path).weights
    assert {name: array.tolist() for name, array in weights.items()} == {
        name: tensor.tolist() for name, tensor in tiny().items()
    }


@pytest.mark.parametrize(
    "name", ["w.pth", "w.pt", "w.ckpt", "pytorch_model.bin", "checkpoint.pth.tar", "W.PTH"]
)
def test_files_of_pytorch_are_read_whatever_their_ending(folder, name):
    torch.save(tiny(), folder / name)
    assert_read(folder / name)


def test_a_folder_with_pytorch_model_bin_is_read(folder):
    torch.save(tiny(), folder / "pytorch_model.bin")
    assert_read(folder)


def write_shards(folder, kind):
    """Two shards and their index, as transformers writes them."""
    ending = {"model": "safetensors", "pytorch_model": "bin"}[kind]
    files = [f"{kind}-0000{i}-of-00002.{ending}" for i in (1, 2)]
    tensors = tiny()
    table = {name: files[i % 2] for i, name in enumerate(tensors)}
    for file in files:
        part = {name: tensor for name, tensor in tensors.items() if table[name] == file}
        if kind == "model":
            save_file({name: tensor.numpy() for name, tensor in part.items()}, folder / file)
        else:
            torch.save(part, folder / file)
    index = folder / f"{kind}.{ending}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": table}))
    return index, files


@pytest.mark.parametrize("kind", ["model", "pytorch_model"])
def test_shards_are_read_by_their_index(folder, kind):
    index, _ = write_shards(folder, kind)
    assert index.name in FOLDER_FILES
    assert_read(index)
    assert_read(folder)


def test_broken_shards_are_named(folder):
    index, files = write_shards(folder, "model")
    table = json.loads(index.read_text())["weight_map"]
    index.write_text(json.dumps({"weight_map": table | {"fc.bias": files[0]}}))
    assert f"'fc.bias' is not in {files[0]}" in message(load_file, folder)
    (folder / "aside").mkdir()
    (folder / files[1]).rename(folder / "aside" / files[1])
    index.write_text(json.dumps({"weight_map": table}))
    assert f"{files[1]}: cannot be read (No such file" in message(load_file, folder)
    long, strange = "a" * 300 + ".safetensors", ("a\0.safetensors", "\ud800.safetensors", "a\nb/..", "..")
    places = (f"aside/{files[1]}", "../x.safetensors", index.name)
    for wrong in (*places, *strange, long, 3, "", None, ["a"], {}):
        index.write_text(json.dumps({"weight_map": {"a": wrong}}))
        assert "expected one in its own folder" in message(load_file, folder)
    for wrong in ({}, {"weight_map": []}, {"weight_map": {}}):
        index.write_text(json.dumps(wrong))
        assert "weight_map is" in message(load_file, folder)
    index.write_text("[" * 100_000)
    assert "nested too deeply" in message(load_file, folder)


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("w.h5", b"\x89HDF\r\n\x1a\n" + bytes(100), "is an HDF5 file, as Keras"),
        ("w.pth", b"\x89HDF\r\n\x1a\n" + bytes(100), "is an HDF5 file"),
        ("tf_model.h5", b"x" * 100, "Keras' weights, by its name"),
        ("w.onnx", b"\x08\x07" * 50, "an ONNX graph, by its name"),
        ("saved_model.pb", b"\x08\x07" * 50, "a TensorFlow graph, by its name"),
        ("flax_model.msgpack", b"\x81" * 50, "Flax's weights, by its name"),
        ("w.pth", b"<!DOCTYPE html><html>", "a web page"),
        ("w.safetensors", b"<html><body>404", "a web page"),
        ("w.safetensors", b"\x1f\x8b" + bytes(100), "compressed by gzip"),
        ("w.npy", b"\x93NUMPY" + bytes(100), "a NumPy array"),
        ("w.gguf", b"GGUF" + bytes(100), "a GGUF file"),
        ("w.txt", b"words", "has extension '.txt', expected .safetensors, .pth"),
        ("w", b"words", "has extension ''"),
        ("w.bin", b"words", "is damaged or no PyTorch file"),
        ("w.ckpt", b"words", "is damaged or no PyTorch file"),
        ("w.bin", b"", "is empty"),
    ],
)
def test_other_kinds_of_files_are_named(folder, name, content, found):
    (folder / name).write_bytes(content)
    assert found in message(load_file, folder / name)


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (None, "weights: found None, expected the path"),
        (3, "weights: found 3, expected the path"),
        (b"w.pth", "weights: found b'w.pth', expected the path"),
        ("w\0.pth", r"'w\x00.pth': is no path (embedded null byte)"),
        ("w\ud800.pth", r"'w\ud800.pth': is no path"),
        ("w" * 300, "www...: cannot be read (File name too long)"),
    ],
)
@pytest.mark.parametrize("read", [load_file, load_weights, read_metadata])
def test_what_is_no_path_is_named(read, path, found):
    assert found in message(read, path)


def test_torchscript_is_named(folder):
    torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)).save(folder / "w.pt")
    assert "is a TorchScript program" in message(load_file, folder / "w.pt")


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
def test_what_is_no_regular_file_is_named_at_once(folder, name):
    os.mkfifo(folder / name)
    assert "is no regular file" in message(load_file, folder / name)


def test_folders_without_weights_are_named(folder):
    assert "model.safetensors: is missing" in message(load_file, folder)
    (folder / "tf_model.h5").write_bytes(b"x")
    assert "has tf_model.h5, which is not read here" in message(load_file, folder)
    (folder / "tf_model.h5").unlink()
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "step-00000001.safetensors").touch()
    assert "has no weights yet" in message(load_file, folder)
    (folder / "d.safetensors").mkdir()
    assert "is missing" in message(load_file, folder / "d.safetensors")


def test_a_runs_checkpoint_gives_its_average_and_says_so(folder):
    tensors = {
        f"{part}/{name}": np.full(2, i)
        for i, part in enumerate(("model", "velocity", "average"))
        for name in tiny()
    }
    path = folder / "step.safetensors"
    save_file(tensors, path)
    weights, _, [note] = load_file(path)
    assert all((array == 2).all() for array in weights.values()) and weights.keys() == tiny().keys()
    assert "took 'average'" in note and "--key model" in note
    assert all((array == 0).all() for array in load_file(path, "model").weights.values())
    save_file({name: a for name, a in tensors.items() if not name.startswith("average/")}, path)
    weights, _, notes = load_file(path)
    assert all((array == 0).all() for array in weights.values()) and not notes
