"""`convert --check`: images scored in every form of a conversion, by the programs that read the forms."""

import re
import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from command_line import assert_one_line_error, run_here
from narrow import narrow_resnet
from reference import arrays
from safetensors.numpy import load_file, save_file
from scoring_reference import CLASSES, write_images

from sysds_resnet import convert
from sysds_resnet.network.weights.files import describe, write_weights
from sysds_resnet.scoring import agreement, consumers
from sysds_resnet.scoring.agreement import compare, generated
from sysds_resnet.scoring.consumers import FormScores

pytestmark = pytest.mark.usefixtures("shared")
BESIDE = {"mean": [100.0, 110.0, 120.0], "std": [50.0, 55.0, 60.0], "image_size": [32, 32], "resize_size": 38}
LINE = re.compile(
    r"(\S+) by (.+): logits differ by up to (\S+), (\S+) of the largest \(allowed: (\S+)\), "
    r"probabilities by up to (\S+)"
)


@pytest.fixture(scope="module")
def reference():
    return narrow_resnet(18, num_classes=len(CLASSES))


@pytest.fixture
def source(reference, folder):
    write_weights(folder / "source.safetensors", arrays(reference), metadata=describe(BESIDE))
    return folder / "source.safetensors"


def compared(outcome):
    """The program that scored each form, and the largest difference as a share of the largest logit."""
    found = [LINE.fullmatch(line) for line in outcome.out.splitlines()]
    return [(line[1], line[2], float(line[4])) for line in found if line]


def checked(capfd, source, destination, *flags):
    """What a conversion with a check that went well says of each form."""
    outcome = run_here(capfd, "convert", source, destination, *flags, "--check")
    assert (outcome.code, outcome.err) == (0, ""), outcome
    assert outcome.out.splitlines()[-1] == "check: the scores agree"
    assert f"{source} by this project in double precision: logits up to" in outcome.out
    return compared(outcome)


def test_an_onnx_file_is_scored_by_onnx_runtime(capfd, source, folder):
    pytest.importorskip("onnxruntime")
    for flags in ((), ("--onnx-input", "normalized")):
        [(path, by, share)] = checked(capfd, source, folder / "w.onnx", *flags)
        assert path == str(folder / "w.onnx") and by.startswith("ONNX Runtime ") and 0 < share < 1e-5


def test_a_hugging_face_folder_is_scored_by_transformers(capfd, source, folder):
    [(path, by, share)] = checked(capfd, source, folder / "hf", "--to", "huggingface")
    assert path == str(folder / "hf") and by.startswith("transformers ") and 0 < share < 1e-5
    # and so it is as a source
    forms = checked(capfd, folder / "hf", folder / "back.safetensors")
    assert [(path, by.split()[0]) for path, by, _ in forms] == [
        (str(folder / "hf"), "transformers"),
        (str(folder / "back.safetensors"), "this"),
    ]


def test_a_hugging_face_folder_is_scored_here_without_transformers(capfd, source, folder, monkeypatch):
    monkeypatch.setattr(agreement, "transformers_package", lambda: None)
    [(_, by, share)] = checked(capfd, source, folder / "hf", "--to", "huggingface")
    assert by == "this project in double precision" and 0 < share < 1e-6


def test_transformers_that_cannot_be_imported_are_noted_and_not_used(capfd, source, folder, monkeypatch):
    class Broken(ModuleType):
        def __getattr__(self, name):
            raise RuntimeError(f"no {name} with this torchvision")

    monkeypatch.setitem(sys.modules, "transformers", Broken("transformers"))
    monkeypatch.setattr(consumers, "find_spec", lambda name: name)
    outcome = run_here(capfd, "convert", source, folder / "hf", "--to", "huggingface", "--check")
    assert outcome.code == 0
    assert outcome.err == (
        "note: transformers: cannot be imported (no ResNetForImageClassification with this torchvision), and "
        "is not used for the check\n"
    )
    assert [by for _, by, _ in compared(outcome)] == ["this project in double precision"]


def test_a_pth_file_is_scored_by_pytorch(capfd, reference, folder):
    torch.save({"model": reference.state_dict(), "image_size": 32}, folder / "w.pth")
    forms = checked(capfd, folder / "w.pth", folder / "dml", "--to", "systemds")
    assert [by.split()[0] for _, by, _ in forms] == ["PyTorch", "this"]
    assert forms[0][2] < 1e-5 and forms[1][2] < 1e-12


@pytest.mark.parametrize(("dtype", "least", "most"), [("float16", 1e-6, 3e-2), ("float64", 0.0, 1e-6)])
def test_what_is_allowed_depends_on_the_type_of_the_numbers(capfd, source, folder, dtype, least, most):
    [(_, _, share)] = checked(capfd, source, folder / "hf", "--to", "huggingface", "--dtype", dtype)
    assert least <= share <= most


@pytest.mark.parametrize("channels", [1, 4])
def test_images_of_other_channels_are_generated(capfd, folder, channels):
    pytest.importorskip("onnxruntime")
    reference = narrow_resnet(18, num_classes=3, channels=channels)
    metadata = {"mean": [100.0] * channels, "std": [50.0] * channels, "image_size": [32, 48]}
    write_weights(folder / "w.safetensors", arrays(reference), metadata=describe(metadata))
    checked(capfd, folder / "w.safetensors", folder / "w.onnx")
    checked(capfd, folder / "w.safetensors", folder / "hf", "--to", "huggingface")


def test_images_are_those_of_a_data_set_if_one_is_given(capfd, source, folder):
    write_images(folder / "data" / "train", 7)
    write_images(folder / "data" / "val", 20)
    outcome = run_here(
        capfd, "convert", source, folder / "w.safetensors", "--check", "--dataset", folder / "data"
    )
    assert outcome.code == 0
    assert f"check: 16 images of the data set {folder / 'data'} of 32 x 32 pixels" in outcome.out.splitlines()


def test_another_network_in_the_destination_is_found_out(capfd, source, folder, monkeypatch):
    """Here one variance is another one, as by a mistake of whoever writes."""
    write = convert.write_weights

    def wrongly(path, weights, **options):
        write(path, weights, **options)
        stored = load_file(path)
        stored["bn1.running_var"] = 2 * stored["bn1.running_var"]
        save_file(stored, path)

    monkeypatch.setattr(convert, "write_weights", wrongly)
    outcome = run_here(capfd, "convert", source, folder / "w.safetensors", "--check")
    assert outcome.code == 1 and outcome.err == ""
    assert outcome.out.splitlines()[-1] == (
        f"check: the scores differ by more than is allowed; do not use {folder / 'w.safetensors'}"
    )
    [(_, _, share)] = compared(outcome)
    assert share > 1e-3


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_scores_that_are_not_finite_never_agree(folder, value):
    reference = FormScores(folder, "a", np.array([[1.0, 2.0]]), "float64")
    with np.errstate(invalid="ignore"):
        assert not compare([reference, FormScores(folder, "b", np.array([[1.0, value]]), "float32")])[1]


def test_scores_of_zeros_agree_with_themselves(folder):
    zeros = FormScores(folder, "a", np.zeros((1, 2)), "float32")
    assert compare([zeros, zeros])[1]


def test_the_largest_differences_are_those_of_all_images_and_classes(folder):
    logits = np.array([[0.0, 4.0], [1.0, 2.0]])
    others = logits + np.array([[0.0, 0.0], [0.0, 3e-4]])
    [_, line], agree = compare(
        [FormScores(folder, "a", logits, "float64"), FormScores(folder, "b", others, "float32")]
    )
    probability = [1 / (1 + np.exp(x)) for x in (1.0, 1.0003)]
    found = LINE.fullmatch(line)
    assert agree and found[3] == "0.0003" and found[4] == "7.5e-05" and found[5] == "1e-04"
    assert float(found[6]) == pytest.approx(probability[0] - probability[1], rel=0.05)


def test_generated_images_differ_and_use_the_whole_range():
    images = generated(4, 33, 64, 3)
    assert images.shape == (4, 33, 64, 3) and images.dtype == np.uint8
    assert images.min() < 10 and images.max() > 245
    assert np.array_equal(images, generated(4, 33, 64, 3))
    assert np.abs(images[0].mean((0, 1)) - images[1].mean((0, 1))).max() > 1


# Refusals


def test_checks_that_cannot_be_made_are_refused_before_anything_is_written(
    capfd, source, folder, monkeypatch
):
    weights = {name: array for name, array in load_file(source).items() if not name.startswith("fc.")}
    write_weights(folder / "backbone.safetensors", weights)
    before = sorted(path.name for path in folder.iterdir())
    for flags, found in [
        ((source, folder / "w.safetensors", "--dataset", "digits"), "without check"),
        (
            (folder / "backbone.safetensors", folder / "w.safetensors", "--check"),
            "a backbone without a final",
        ),
        ((source, folder / "hf", "--to", "huggingface", "--onnx-input", "normalized"), "with onnx alone"),
    ]:
        assert_one_line_error(run_here(capfd, "convert", *flags), found)
    pytest.importorskip("onnx")
    assert_one_line_error(
        run_here(capfd, "convert", source, folder / "w.onnx", "--dtype", "float16"), "expected float32"
    )
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    outcome = run_here(capfd, "convert", source, folder / "w.onnx", "--check")
    assert_one_line_error(outcome, "extra 'onnx'")
    assert sorted(path.name for path in folder.iterdir()) == before


def test_images_of_a_data_set_are_square(capfd, reference, folder):
    write_weights(folder / "w.safetensors", arrays(reference), metadata=describe({"image_size": [32, 64]}))
    flags = ["--check", "--dataset", "digits"]
    outcome = run_here(capfd, "convert", folder / "w.safetensors", folder / "v.safetensors", *flags)
    assert_one_line_error(outcome, "found images of 32 x 64 pixels, expected square ones")
