"""Broken images in commands: named, or skipped, listed and counted."""

import csv

import numpy as np
import pytest
from command_line import assert_one_line_error, run_here
from PIL import Image

from sysds_resnet.batches.bad_images import BadImages
from sysds_resnet.batches.settings import ReadingSettings
from sysds_resnet.errors import UserError
from sysds_resnet.images import open_dataset
from sysds_resnet.report.metrics import read_metrics

TINY = ["--model", "resnet18", "--image-size", "32", "--epochs", "2", "--batch-size", "4"]
TINY += ["--optimizer", "sgd", "--base-lr", "0.01", "--warmup-epochs", "0"]


@pytest.fixture
def photos(folder):
    """Two classes of five training and three validation images; one of class b is broken in each."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 5), ("val", 3)):
        for name in "ab":
            for k in range(count):
                path = folder / "data" / split / name / f"{k}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(path)
        (folder / "data" / split / "b" / "1.png").write_bytes(b"no image")
    return folder / "data"


def listed(folder):
    with open(folder / "bad_images.csv", newline="") as file:
        return [(row["name"], row["class"], row["reason"]) for row in csv.DictReader(file)]


@pytest.mark.usefixtures("shared")
def test_training_stops_at_a_broken_image_and_names_it(photos, folder, capfd):
    outcome = run_here(capfd, "train", "--dataset", photos, "--out", folder / "run", *TINY)
    assert_one_line_error(outcome, photos / "train" / "b" / "1.png", "class b", "no known image format")
    assert not (folder / "run" / "bad_images.csv").exists()


@pytest.mark.long
@pytest.mark.usefixtures("shared")
def test_training_skips_broken_images_and_lists_each_once(photos, folder, capfd):
    flags = ["--on-error", "skip", "--max-bad", "0.4"]
    outcome = run_here(capfd, "train", "--dataset", photos, "--out", folder / "run", *TINY, *flags)
    assert (outcome.code, outcome.err) == (0, "")
    assert f"2 images cannot be read and were left out: {folder / 'run' / 'bad_images.csv'}" in outcome.out
    assert {(name, label) for name, label, _ in listed(folder / "run")} == {
        (str(photos / split / "b" / "1.png"), "b") for split in ("train", "val")
    }
    assert all("no known image format" in reason for _, _, reason in listed(folder / "run"))
    # five images remain in validation, and shares are of those
    top1 = read_metrics(folder / "run", "epoch")["val_top1"].to_numpy()
    np.testing.assert_allclose(5 * top1, np.round(5 * top1))
    weights = folder / "run" / "weights.safetensors"
    outcome = run_here(
        capfd, "evaluate", "--weights", weights, "--dataset", photos, "--out", folder / "scores", *flags
    )
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.startswith("5 images: ")
    assert [name for name, _, _ in listed(folder / "scores")] == [str(photos / "val" / "b" / "1.png")]


@pytest.mark.usefixtures("shared")
def test_evaluation_and_prediction_stop_or_skip(photos, folder, capfd):
    flags = ["--on-error", "skip", "--max-bad", "0.4"]
    run_here(capfd, "train", "--dataset", photos, "--out", folder / "run", *TINY, *flags)
    weights = ["--weights", folder / "run" / "weights.safetensors"]
    outcome = run_here(capfd, "evaluate", *weights, "--dataset", photos)
    assert_one_line_error(outcome, "1.png")
    prediction = ["--input", photos / "val", "--out", folder / "p" / "predictions.csv"]
    outcome = run_here(capfd, "predict", *weights, *prediction)
    assert_one_line_error(outcome, "1.png")
    assert not (folder / "p").exists()
    outcome = run_here(capfd, "predict", *weights, *prediction, *flags)
    assert outcome.code == 0
    with open(folder / "p" / "predictions.csv", newline="") as file:
        names = [row["path"] for row in csv.DictReader(file)]
    assert names == [
        str(photos / "val" / name) for name in ("a/0.png", "a/1.png", "a/2.png", "b/0.png", "b/2.png")
    ]
    assert [label for _, label, _ in listed(folder / "p")] == [""]


def skipping(folder, max_bad):
    return BadImages(ReadingSettings(on_error="skip", max_bad=max_bad), folder)


def test_too_many_broken_images_end_the_command(photos, folder):
    data = open_dataset(photos, "train")
    bad = skipping(folder, 0.2)
    for index in (3, 4, 3):  # the same twice counts once
        bad(data, index, f"reason {index}")
    with pytest.raises(UserError) as error:
        bad(data, 5, "reason 5")
    assert "found 3 images that cannot be read, expected no more than 0.2 of 10" in str(error.value)
    assert [reason for _, _, reason in listed(folder)] == ["reason 3", "reason 4", "reason 5"]


def test_data_sets_are_counted_apart(photos, folder):
    train, val = (open_dataset(photos, split) for split in ("train", "val"))
    bad = skipping(folder, 0.1)
    bad(train, 6, "one of ten is not too many")
    with pytest.raises(UserError) as error:
        bad(val, 4, "one of six is")
    assert "found 1 images that cannot be read, expected no more than 0.1 of 6" in str(error.value)


def test_a_resumed_run_goes_on_with_the_list(photos, folder):
    data = open_dataset(photos, "train")
    skipping(folder, 0.2)(data, 3, "a reason, with a comma")
    resumed = skipping(folder, 0.2)
    resumed(data, 3, "again")
    resumed(data, 4, "another")
    assert [reason for _, _, reason in listed(folder)] == ["a reason, with a comma", "another"]
    assert len(resumed) == 2


def test_nothing_is_written_without_broken_images(folder):
    assert len(skipping(folder, 0)) == 0
    assert list(folder.iterdir()) == []
