"""Commands that fail: exit code 2, one line on standard error, nothing half-written."""

import numpy as np
import pytest
from command_line import (
    assert_one_line_error,
    finish,
    run_here,
    start_process,
)
from narrow import narrow_resnet
from PIL import Image
from reference import arrays

from sysds_resnet.network.weights.files import write_weights

TINY = ["--dataset", "synthetic", "--num-images", "16", "--model", "resnet18", "--batch-size", "8"]


@pytest.fixture
def folder(folder, monkeypatch):
    """An empty working directory."""
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture(scope="module")
def reference():
    return narrow_resnet(18, num_classes=3)


@pytest.fixture
def weights(reference, folder):
    path = folder / "w.safetensors"
    write_weights(path, arrays(reference))
    return path


def save_image(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def images(folder):
    """A data set of two classes with two images each."""
    for split in ("train", "val"):
        for i in range(4):
            save_image(folder / "data" / split / f"class{i % 2}" / f"{i}.png")
    return folder / "data"


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# Processes


def test_a_failing_command_exits_with_2_and_one_line_and_with_debug_a_traceback(folder):
    command = ["evaluate", "--weights", "none.safetensors", "--heap", "600m"]
    plain, debug = (start_process(*command, *flags) for flags in ([], ["--debug"]))
    assert_one_line_error(finish(plain), "none.safetensors", "No such file")
    outcome = finish(debug)
    assert outcome.code == 2
    lines = outcome.err.splitlines()
    assert lines[0].startswith("Traceback") and lines[-1].startswith("error: none.safetensors")
    assert any("UserError" in line for line in lines)
    assert names(folder) == []


# Weights


@pytest.mark.parametrize("command", ["evaluate", "predict"])
@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda w: w.pop("layer3.0.conv2.weight"), "layer3.0.conv2.weight is missing"),
        (lambda w: w.update(extra=np.ones(2)), "'extra' is unexpected"),
        (lambda w: w.update({"bn1.bias": np.ones(9)}), "bn1.bias has shape (9,), expected (8,)"),
        (lambda w: w["bn1.bias"].fill(np.inf), "bn1.bias has 8 NaN or infinite values"),
        (
            lambda w: [w.pop(name) for name in list(w) if name.startswith("layer4")],
            "basic blocks (2, 2, 2, 0)",
        ),
    ],
)
def test_weights_that_do_not_fit_are_named(shared, folder, images, reference, capfd, command, change, found):
    wrong = arrays(reference)
    change(wrong)
    write_weights(folder / "w.safetensors", wrong)
    flags = ["--dataset", images] if command == "evaluate" else ["--input", images]
    outcome = run_here(capfd, command, "--weights", folder / "w.safetensors", *flags, "--out", folder / "o")
    assert_one_line_error(outcome, folder / "w.safetensors", found)
    assert names(folder) == ["data", "w.safetensors"]


@pytest.mark.parametrize("command", ["evaluate", "predict"])
def test_truncated_weights_are_named(shared, folder, images, weights, capfd, command):
    truncate(weights)
    flags = ["--dataset", images] if command == "evaluate" else ["--input", images]
    outcome = run_here(capfd, command, "--weights", weights, *flags, "--out", folder / "o")
    assert_one_line_error(outcome, weights, "is damaged")
    assert names(folder) == ["data", "w.safetensors"]


# Images


def test_an_unreadable_image_ends_prediction_before_anything_is_written(
    shared, folder, images, weights, capfd
):
    truncate(images / "val" / "class1" / "3.png")
    (images / "val" / "class0" / "9.jpg").write_bytes(b"no image")
    flags = ["--input", images / "val", "--out", "p.csv", "--logits", "l.npy", "--image-size", 32]
    outcome = run_here(capfd, "predict", "--weights", weights, *flags)
    assert_one_line_error(
        outcome,
        images / "val" / "class0" / "9.jpg",
        "repair, replace or remove the file, or leave it out with --on-error skip",
    )
    assert names(folder) == ["data", "w.safetensors"]


def test_an_unreadable_image_ends_training_with_its_name(shared, folder, images, capfd):
    truncate(images / "train" / "class1" / "3.png")
    flags = ["--model", "resnet18", "--batch-size", 4, "--image-size", 32, "--out", "run"]
    outcome = run_here(capfd, "train", "--dataset", images, *flags)
    assert_one_line_error(
        outcome,
        images / "train" / "class1" / "3.png",
        "repair, replace or remove the file, or leave it out with --on-error skip",
    )
    assert names(folder / "run" / "checkpoints") == [] and "weights.safetensors" not in names(folder / "run")


@pytest.mark.parametrize(
    ("flags", "found"),
    [
        (
            ["--dataset", "nowhere"],
            "data set nowhere: found nothing, expected digits, photos, synthetic, a folder or a table",
        ),
        (["--dataset", "data/val"], "data set data/val: found no train/ to train on"),
        (["--dataset", "synthetic", "--batch-size", "300"], "batch_size: found 300 for 256 training images"),
        (
            ["--dataset", "synthetic", "--batch-size", "8", "--micro-batch", "3"],
            "micro_batch: found 3 with batch",
        ),
        (["--dataset", "digits", "--image-size", "33"], "image_size: found 33 for digits"),
        (["--dataset", "digits", "--num-images", "9"], "num_images: found 9 for data set 'digits'"),
    ],
)
def test_training_that_cannot_start_leaves_no_folder(shared, folder, images, capfd, flags, found):
    outcome = run_here(capfd, "train", "--model", "resnet18", *flags, "--out", folder / "run")
    assert_one_line_error(outcome, found)
    assert names(folder) == ["data"]


@pytest.mark.parametrize("flags", [["--input", "nowhere"], ["--input", "empty"]])
def test_prediction_without_images_is_named(shared, folder, weights, capfd, flags):
    (folder / "empty").mkdir()
    outcome = run_here(capfd, "predict", "--weights", weights, *flags)
    assert_one_line_error(outcome, f"images {flags[1]}: found no")
    assert names(folder) == ["empty", "w.safetensors"]


# Places to write


@pytest.mark.parametrize(
    ("command", "data"),
    [pytest.param("evaluate", "--dataset", marks=pytest.mark.long), ("predict", "--input")],
)
def test_a_result_that_cannot_be_written_is_named(shared, folder, images, capfd, command, data):
    write_weights(folder / "w.safetensors", arrays(narrow_resnet(18, num_classes=2)))
    (folder / "file").touch()
    flags = ["--weights", "w.safetensors", data, images / "val", "--image-size", 32, "--out", "file/result"]
    assert_one_line_error(run_here(capfd, command, *flags), "file")
    assert names(folder) == ["data", "file", "w.safetensors"]
    assert run_here(capfd, command, *flags[:-1], "new/folder/result").code == 0
    assert names(folder / "new" / "folder") == ["result"]


def test_a_run_folder_that_cannot_be_made_is_named(shared, folder, capfd):
    (folder / "file").touch()
    outcome = run_here(capfd, "train", *TINY, "--out", folder / "file" / "run")
    assert_one_line_error(outcome, folder / "file")
    assert names(folder) == ["file"]
