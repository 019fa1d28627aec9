"""The convert command: weights between torchvision, Hugging Face and SystemDS, and what it refuses."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from command_line import assert_one_line_error, run_here
from narrow import STEM, narrow_resnet
from reference import ResNet, arrays

from sysds_resnet import ResNet as Model
from sysds_resnet.network.weights.files import describe, read_metadata, read_weights, write_weights
from sysds_resnet.network.weights.forms import load_weights

pytestmark = pytest.mark.usefixtures("shared")


@pytest.fixture(scope="module")
def reference():
    """Weights in float32, as they are usually given."""
    return narrow_resnet(18, num_classes=3, dtype=torch.float32)


@pytest.fixture
def source(reference, folder):
    path = folder / "source.safetensors"
    write_weights(path, arrays(reference))
    return path


@pytest.fixture
def convert(capfd):
    """Convert and check that it went well."""

    def run(*arguments):
        outcome = run_here(capfd, "convert", *arguments)
        assert (outcome.code, outcome.err) == (0, ""), outcome
        return outcome.out

    return run


def without_counters(weights):
    return {name: array for name, array in weights.items() if not name.endswith("num_batches_tracked")}


def assert_same(left, right, same_type=True):
    assert set(left) == set(right)
    for name in left:
        assert left[name].shape == right[name].shape, name
        assert not same_type or left[name].dtype == right[name].dtype, name
        np.testing.assert_array_equal(left[name], right[name], err_msg=name)


def assert_same_logits(left, right):
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        a, b = left(images), right(images)
    a, b = (getattr(x, "logits", x) for x in (a, b))
    assert 1e-3 < a.abs().max() < np.inf
    assert (a - b).abs().max() <= 1e-5 * a.abs().max()


# Round trips


def test_huggingface_and_back_is_exact(convert, source, folder, reference):
    said = convert(source, folder / "hf", "--to", "huggingface")
    assert said == f"{folder / 'hf'}: ResNet-18, 3 channels, 3 classes, 122 tensors (huggingface)\n"
    model = transformers.ResNetForImageClassification.from_pretrained(folder / "hf", local_files_only=True)
    assert_same_logits(reference, model.eval())
    convert(folder / "hf", folder / "back.safetensors")
    assert_same(read_weights(folder / "back.safetensors"), arrays(reference))


def test_systemds_and_back_is_exact(convert, source, folder, reference):
    convert(source, folder / "dml", "--to", "systemds")
    assert {path.name for path in (folder / "dml").iterdir() if path.suffix != ".crc"} == {
        "complete",
        "complete.mtd",
        "tensors",
        "tensors.mtd",
    }
    convert(folder / "dml", folder / "back.safetensors", "--dtype", "float64")
    back = read_weights(folder / "back.safetensors")
    assert {array.dtype for array in back.values()} == {np.dtype(np.float64)}
    assert_same(back, without_counters(arrays(reference)), same_type=False)
    convert(folder / "dml", folder / "single.safetensors")
    assert_same(read_weights(folder / "single.safetensors"), without_counters(arrays(reference)))
    assert sorted(path.name for path in folder.iterdir()) == [
        "back.safetensors",
        "dml",
        "single.safetensors",
        "source.safetensors",
    ]


def test_dml_reads_what_convert_wrote(convert, engine, source, folder, reference):
    convert(source, folder / "dml", "--to", "systemds")
    program = f"""
    source("dml/network/weights.dml") as weights
    architecture = read("{folder}/dml/complete")
    tensors = read("{folder}/dml/tensors")
    [model, registry] = weights::load(architecture, tensors, "{folder}/dml")
    """
    model = Model(18, num_classes=3, engine=engine)
    model.weights = engine.run(program, {}, {"model": "list"})["model"]
    assert_same(model.state_dict(), without_counters(arrays(reference)), same_type=False)


def test_convert_reads_what_dml_wrote(convert, engine, folder):
    model = Model(18, num_classes=3, engine=engine)
    program = f"""
    source("dml/network/weights.dml") as weights
    weights::save(model, registry, "{folder}/dml")
    done = 1
    """
    inputs = {"model": model.weights, "registry": model.network.registry}
    engine.run(program, inputs, {"done": "int"})
    convert(folder / "dml", folder / "w.safetensors", "--dtype", "float64")
    assert_same(read_weights(folder / "w.safetensors"), model.state_dict())


def test_pth_is_read(convert, folder, reference):
    torch.save({"state_dict": reference.state_dict()}, folder / "w.pth")
    convert(folder / "w.pth", folder / "w.safetensors")
    assert_same(read_weights(folder / "w.safetensors"), arrays(reference))


def test_a_run_folder_gives_its_weights_and_what_stands_beside_them(convert, engine, folder):
    (folder / "run").mkdir()
    model = Model(18, num_classes=2, engine=engine, mean=np.ones(3), std=np.full(3, 2.0), classes=["a", "b"])
    model.save(folder / "run" / "weights.safetensors", image_size=[32, 32])
    beside = {"mean": [1, 1, 1], "std": [2, 2, 2], "classes": ["a", "b"], "image_size": [32, 32]}
    convert(folder / "run", folder / "w.safetensors", "--dtype", "float32")
    assert read_metadata(folder / "w.safetensors") == beside
    convert(folder / "run", folder / "hf", "--to", "huggingface")
    assert load_weights(folder / "hf")[1] == beside, "or its images would be normalised otherwise from now on"
    state = {name: torch.from_numpy(a) for name, a in read_weights(folder / "w.safetensors").items()}
    ResNet(18, 2, stem=STEM).load_state_dict(state, strict=True)


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_dtype_is_changed_and_counters_are_kept(convert, source, folder, reference, dtype):
    convert(source, folder / "w.safetensors", "--dtype", dtype)
    expected = {
        name: array.astype(dtype) if array.dtype.kind == "f" else array
        for name, array in arrays(reference).items()
    }
    assert_same(read_weights(folder / "w.safetensors"), expected)


def test_what_stands_beside_comes_back_from_systemds_matrices(convert, engine, folder, reference):
    beside = {
        "mean": [1.0, 2.0, 3.0],
        "std": [4.0, 5.0, 6.0],
        "classes": ["ä", "b", "c"],
        "image_size": [64, 64],
    }
    write_weights(folder / "w.safetensors", arrays(reference), metadata=describe(beside))
    convert(folder / "w.safetensors", folder / "dml", "--to", "systemds")
    convert(folder / "dml", folder / "back.safetensors")
    assert read_metadata(folder / "back.safetensors") == beside
    (folder / "dml" / "metadata.json").rename(folder / "metadata.json")
    shutil.rmtree(folder / "dml")
    other = {name: array * 2 for name, array in arrays(reference).items()}
    write_weights(folder / "other.safetensors", other)
    convert(folder / "other.safetensors", folder / "dml", "--to", "systemds")
    (folder / "metadata.json").rename(folder / "dml" / "metadata.json")
    _, metadata, [note] = load_weights(folder / "dml", engine)
    assert metadata == {} and "belongs to other weights" in note


def test_either_of_weights_and_their_average_can_be_had(capfd, folder, reference):
    average = narrow_resnet(18, num_classes=3, seed=1, dtype=torch.float32)
    averaged = {f"module.{name}": tensor for name, tensor in average.state_dict().items()}
    content = {"model": reference.state_dict(), "model_ema": {"n_averaged": torch.tensor(9), **averaged}}
    torch.save(content, folder / "w.pth")
    outcome = run_here(capfd, "convert", folder / "w.pth", folder / "a.safetensors")
    assert outcome.code == 0
    assert outcome.err.startswith(f"note: {folder / 'w.pth'}: took 'model_ema', the averaged weights")
    assert outcome.err.count("\n") == 1
    assert_same(read_weights(folder / "a.safetensors"), arrays(average))
    outcome = run_here(capfd, "convert", folder / "w.pth", folder / "r.safetensors", "--key", "model")
    assert (outcome.code, outcome.err) == (0, "")
    assert_same(read_weights(folder / "r.safetensors"), arrays(reference))


def test_a_backbone_is_converted_and_good_for_training_alone(capfd, convert, folder, reference):
    backbone = {f"encoder_q.{n}": t for n, t in reference.state_dict().items() if not n.startswith("fc.")}
    torch.save(backbone, folder / "w.pth")
    outcome = run_here(capfd, "convert", folder / "w.pth", folder / "b.safetensors")
    assert outcome.code == 0 and "left out 'encoder_q.'" in outcome.err
    assert "ResNet-18, 3 channels, no final layer, 120 tensors" in outcome.out
    for arguments in (
        ("convert", folder / "b.safetensors", folder / "hf", "--to", "huggingface"),
        ("evaluate", "--weights", folder / "b.safetensors", "--dataset", "digits"),
    ):
        outcome = run_here(capfd, *arguments)
        assert_one_line_error(outcome, "fc.weight is missing", "a backbone alone", "--init-from")


# Refusals


def test_numbers_that_a_type_does_not_hold_are_refused(capfd, folder, reference):
    weights = arrays(reference)
    weights["layer1.0.bn1.running_var"][0] = 1e5
    write_weights(folder / "large.safetensors", weights)
    destination = folder / "w.safetensors"
    outcome = run_here(capfd, "convert", folder / "large.safetensors", destination, "--dtype", "float16")
    assert_one_line_error(outcome, "found 100000 in layer1.0.bn1.running_var, expected at most 65504")
    assert not destination.exists()


def change_bias(weights):
    weights["fc.bias"] = weights["fc.bias"][:2]


@pytest.mark.parametrize("to", ["torchvision", "huggingface", "systemds"])
@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda w: w.pop("layer4.1.bn2.running_var"), "layer4.1.bn2.running_var is missing"),
        (lambda w: w.update(extra=np.ones(1, np.float32)), "'extra' is unexpected"),
        (change_bias, "fc.bias has shape (2,), expected (3,)"),
        (lambda w: w["fc.bias"].fill(np.nan), "fc.bias has 3 NaN or infinite values"),
        (lambda w: w.pop("fc.weight"), "fc.weight is missing"),
    ],
)
def test_tensors_that_do_not_fit_are_named_and_nothing_is_written(
    capfd, folder, reference, to, change, found
):
    weights = arrays(reference)
    change(weights)
    write_weights(folder / "wrong.safetensors", weights)
    destination = folder / ("w.safetensors" if to == "torchvision" else "w")
    outcome = run_here(capfd, "convert", folder / "wrong.safetensors", destination, "--to", to)
    assert_one_line_error(outcome, folder / "wrong.safetensors", found)
    assert [path.name for path in folder.iterdir()] == ["wrong.safetensors"]


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("damage", [truncate, Path.unlink])
@pytest.mark.parametrize("damaged", ["tensors", "complete", "tensors.mtd"])
def test_a_damaged_systemds_folder_is_named(capfd, convert, source, folder, damage, damaged):
    convert(source, folder / "dml", "--to", "systemds")
    for checksum in (folder / "dml").rglob(".*.crc"):  # they may be lost on the way
        checksum.unlink()
    path = folder / "dml" / damaged
    damage(max(path.iterdir()) if path.is_dir() else path)  # a large matrix is a folder of parts
    outcome = run_here(capfd, "convert", folder / "dml", folder / "back.safetensors")
    assert_one_line_error(outcome, folder / "dml")
    assert not (folder / "back.safetensors").exists()


def test_a_truncated_file_is_named(capfd, source, folder):
    source.write_bytes(source.read_bytes()[:-100])
    outcome = run_here(capfd, "convert", source, folder / "hf", "--to", "huggingface")
    assert_one_line_error(outcome, source, "is damaged")
    assert not (folder / "hf").exists()


def test_a_destination_without_a_form_is_refused(capfd, source, folder):
    outcome = run_here(capfd, "convert", source, folder / "w")
    assert_one_line_error(outcome, folder / "w", "--to torchvision|huggingface|systemds")


def test_an_existing_folder_is_not_mixed_with_systemds_matrices(capfd, source, folder):
    (folder / "dml").mkdir()
    (folder / "dml" / "mine").touch()
    outcome = run_here(capfd, "convert", source, folder / "dml", "--to", "systemds")
    assert_one_line_error(outcome, folder / "dml", "choose another")
    assert [path.name for path in (folder / "dml").iterdir()] == ["mine"]


def test_a_missing_source_is_named(capfd, folder):
    outcome = run_here(capfd, "convert", folder / "none.safetensors", folder / "w.safetensors")
    assert_one_line_error(outcome, folder / "none.safetensors", "No such file")
