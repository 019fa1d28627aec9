"""Files of weights: formats in and out, exactness, and what users read when a file is wrong."""

import builtins
import json
import os
import zipfile

import numpy as np
import pytest
import safetensors.numpy
import torch
import transformers
from reference import ResNet, arrays, random_resnet
from small_weights import message

from sysds_resnet.network.names import (
    STAGES,
    Architecture,
    check_tensors,
    from_huggingface,
    infer_architecture,
    to_huggingface,
)
from sysds_resnet.network.weights import files as module
from sysds_resnet.network.weights.files import read_weights, write_weights


@pytest.fixture(scope="module")
def resnet18():
    return random_resnet(18, num_classes=3)


def small(dtype=np.float32):
    return {"conv1.weight": np.arange(24).reshape(2, 3, 4).astype(dtype), "fc.bias": np.ones(5, dtype)}


def assert_same(left, right):
    assert set(left) == set(right)
    for name in left:
        assert left[name].dtype == right[name].dtype, name
        assert left[name].shape == right[name].shape, name
        assert left[name].tobytes() == right[name].tobytes(), name


def hf_model(depth, num_classes=3, channels=3):
    kind, counts = STAGES[depth]
    hidden = [(256 if kind == "bottleneck" else 64) << i for i in range(4)]
    config = transformers.ResNetConfig(
        num_channels=channels, depths=counts, hidden_sizes=hidden, layer_type=kind, num_labels=num_classes
    )
    return transformers.ResNetForImageClassification(config)


def assert_same_logits(left, right, channels=3):
    images = torch.randn(2, channels, 32, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        a, b = left(images), right(images)
    a, b = (getattr(x, "logits", x) for x in (a, b))
    assert 1e-3 < a.abs().max() < np.inf
    assert (a - b).abs().max() <= 1e-12 * a.abs().max()


# Names


@pytest.mark.parametrize("depth", STAGES)
def test_huggingface_names_and_shapes_are_those_of_transformers(depth):
    with torch.device("meta"):
        ours = {n: np.empty(t.shape, "i1") for n, t in ResNet(depth, 3).state_dict().items()}
        theirs = {n: tuple(t.shape) for n, t in hf_model(depth).state_dict().items()}
    renamed = to_huggingface(ours)
    assert {name: array.shape for name, array in renamed.items()} == theirs
    back = from_huggingface(renamed)
    assert list(back) == list(ours)
    assert all(back[name] is ours[name] for name in ours)
    assert infer_architecture(ours) == Architecture(depth, 3, 3)


def test_renaming_refuses_a_foreign_tensor():
    assert "'layer1.0.se.weight'" in message(to_huggingface, {"layer1.0.se.weight": np.ones(1)})
    assert "'resnet.pooler.x'" in message(from_huggingface, {"resnet.pooler.x": np.ones(1)}, "some.file")


def test_architecture_reads_channels_and_classes(resnet18):
    assert infer_architecture(arrays(random_resnet(18, 7, channels=1))) == Architecture(18, 1, 7)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda w: w.clear(), "no tensors"),
        (lambda w: [w.pop(n) for n in list(w) if n.startswith("layer")], "'conv1.weight'"),
        (lambda w: [w.pop(n) for n in list(w) if n.startswith("layer4.1.")], "basic blocks (2, 2, 2, 1)"),
        (
            lambda w: w.update({"conv1.weight": np.ones((64, 3, 3, 3))}),
            "(64, 3, 3, 3), expected (64, any, 7, 7)",
        ),
        (lambda w: w.update({"layer1.0.conv1.weight": np.ones((128, 64, 3, 3))}), "(128, 64, 3, 3)"),
        (lambda w: w.update({"fc.weight": np.ones((3, 100))}), "fc.weight has shape (3, 100)"),
        (lambda w: w.pop("fc.weight"), "fc.weight is missing"),
    ],
)
def test_what_is_no_known_resnet_is_named(resnet18, change, found):
    weights = arrays(resnet18)
    change(weights)
    text = message(infer_architecture, weights, "x.pth")
    assert text.startswith("x.pth: ") and found in text


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


# Checking


def test_fitting_tensors_pass_and_counters_are_ignored():
    expected = {name: array.shape for name, array in small().items()}
    check_tensors(small() | {"bn1.num_batches_tracked": np.array(1)}, expected, "w")
    check_tensors(small(np.float16), expected, "w")


def test_negative_variances_are_named():
    text = message(check_tensors, {"bn1.running_var": np.array([1, -0.5])}, {"bn1.running_var": (2,)}, "w")
    assert "bn1.running_var has the negative variance -0.5, expected none below 0" in text


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"fc.bias": None}, "fc.bias is missing, expected shape (5,)"),
        ({"fc.bias": np.ones(6)}, "fc.bias has shape (6,), expected (5,)"),
        ({"fc.bias": np.ones(5, int)}, "fc.bias has dtype int64"),
        ({"fc.bias": np.array([1, np.nan, 1, np.inf, 1])}, "fc.bias has 2 NaN or infinite values of 5"),
        ({"extra": np.ones(1)}, "'extra' is unexpected"),
        ({"a\nb": np.ones(1)}, r"'a\nb' is unexpected"),
        (
            {"fc.bias": None, "x": np.ones(1), "y": np.ones(1)},
            "fc.bias is missing, expected shape (5,) (and 2 more",
        ),
    ],
)
def test_the_first_tensor_that_does_not_fit_is_named(change, found):
    weights = {n: a for n, a in (small() | change).items() if a is not None}
    text = message(check_tensors, weights, {n: a.shape for n, a in small().items()}, "w.safetensors")
    assert text.startswith("w.safetensors: " + found)
