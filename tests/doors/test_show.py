"""The show command, which draws what training sees."""

import numpy as np
import pandas as pd
import pytest
from command_line import assert_one_line_error, run_here
from listed_images import COUNTS
from noise_images import write_noise
from PIL import Image

from sysds_resnet import show
from sysds_resnet.classes.labels import MixedLabels
from sysds_resnet.images import Augmentation, open_dataset
from sysds_resnet.images.pixels.mixing import Mixing
from sysds_resnet.images.settings import AugmentationSettings


@pytest.fixture
def drawn(monkeypatch):
    """What is to be drawn, which is not."""
    calls = []
    monkeypatch.setattr(show, "draw", lambda images, titles, path: calls.append((images, titles)))
    return calls


def assert_seen(images, titles, dataset, epoch):
    """Check that these are different images of a data set in an epoch, with their classes."""
    known = {dataset.image(i, epoch).tobytes(): i for i in range(len(dataset))}
    indices = [known[image.tobytes()] for image in images]
    assert len(set(indices)) == len(indices)
    assert titles == [dataset.classes[dataset.labels[i]] for i in indices]
    return indices


@pytest.mark.parametrize(
    ("flags", "augmentation"),
    [
        (["--crop-area", 0.08], Augmentation()),
        (
            ["--crop-area", 0.5, "--flip", 1, "--policy", "randaugment", "--magnitude", 14, "--erasing", 0.4],
            Augmentation(crop_scale=(0.5, 1), flip=1, policy="randaugment", magnitude=14, erasing=0.4),
        ),
    ],
)
def test_what_is_shown_is_what_training_sees(source, capfd, drawn, flags, augmentation):
    for epoch in (1, 3):
        outcome = run_here(
            capfd, "show", "--dataset", source, "--images", 7, "--image-size", 40, "--epoch", epoch,
            "--seed", 5, "--workers", 1, *flags,
        )  # fmt: skip
        assert (outcome.code, outcome.err) == (0, "")
        assert outcome.out == "images.png: 7 train images of 40 pixels\n"
    data = open_dataset(source, "train", image_size=40, augmentation=augmentation, seed=5)
    assert [len(images) for images, _ in drawn] == [7, 7]
    first, third = (assert_seen(*call, data, epoch) for call, epoch in zip(drawn, (0, 2), strict=True))
    assert first == third


def test_validation_is_shown_as_evaluation_sees_it(source, capfd, drawn):
    outcome = run_here(
        capfd, "show", "--dataset", source, "--split", "val", "--image-size", 32, "--resize-size", 48,
        "--crop-area", 1, "--policy", "randaugment", "--mixup", 1, "--workers", 1,
    )  # fmt: skip
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out == "images.png: 9 val images of 32 pixels\n", "there are no more"
    data = open_dataset(source, "val", image_size=32, resize_size=48)
    assert len(assert_seen(*drawn[0], data, 0)) == 9


@pytest.mark.parametrize("split", ["train", "val"])
def test_what_is_not_given_is_chosen_as_training_does(tmp_path, capfd, drawn, split):
    images = write_noise(tmp_path, 12, 3, (50, 70))
    outcome = run_here(capfd, "show", "--dataset", images, "--split", split, "--images", 6, "--workers", 1)
    assert outcome.out == (
        "chosen:  --crop-area 0.35 --image-size 64\n"
        "         for 24 training images of about 50 pixels; as train does; flags change that\n"
        f"images.png: 6 {split} images of 64 pixels\n"
    )
    data = open_dataset(images, split, image_size=64, augmentation=Augmentation((0.35, 1)), seed=42)
    assert_seen(*drawn[0], data, 0)


def test_validation_images_alone_are_shown_too(tmp_path, capfd, drawn):
    images = write_noise(tmp_path, 12, 3, (50, 70)) / "val"
    outcome = run_here(capfd, "show", "--dataset", images, "--split", "val", "--workers", 1)
    assert outcome.out == "images.png: 6 val images of 224 pixels\n"


def test_another_seed_shows_other_images(capfd, drawn):
    for seed in (1, 1, 2):
        assert run_here(capfd, "show", "--dataset", "digits", "--images", 16, "--seed", seed).code == 0
    (first, _), (again, _), (other, _) = drawn
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize(
    ("flags", "mixing"),
    [
        (["--mixup", 0.4], Mixing(mixup=0.4)),
        (["--cutmix", 1], Mixing(cutmix=1)),
        (["--mixup", 0.4, "--cutmix", 1], Mixing(0.4, 1)),
    ],
)
def test_batches_are_shown_mixed_as_training_mixes_them(capfd, drawn, flags, mixing):
    for more in ([], flags):
        outcome = run_here(
            capfd, "show", "--dataset", "synthetic", "--images", 12, "--epoch", 4, "--seed", 9, *more
        )
        assert (outcome.code, outcome.err) == (0, "")
    (plain, names), (mixed, titles) = drawn
    labels = np.array([int(name.removeprefix("pattern")) for name in names])
    images, parts = mixing.apply(plain, labels, seed=9, epoch=3, step=0)
    assert (images != plain).any()
    np.testing.assert_array_equal(mixed, images)
    share = parts.share[0]
    assert titles == [
        f"{share:.2f} {own} + {1 - share:.2f} {other}"
        for own, other in zip(names, [names[-1], *names[:-1]], strict=True)
    ]


def test_titles_are_names_of_classes_with_their_shares_where_mixed():
    classes = ["ant", "n02102040 English springer"]
    assert show.titles(np.array([0, 1]), classes) == ["ant", "n02102040 English "]
    mixed = MixedLabels(np.array([0]), np.array([1]), np.array([0.25]))
    assert show.titles(mixed, classes) == ["0.25 ant + 0.75 n02102040"]


@pytest.mark.parametrize(
    "flags", [["--split", "train", "--cutmix", "1"], ["--split", "val", "--images", "1"]]
)
def test_a_picture_is_written(source, tmp_path, capfd, flags):
    out = tmp_path / "new" / "sheet"
    outcome = run_here(
        capfd, "show", "--dataset", source, "--image-size", 32, "--workers", 1, "--out", out, *flags
    )
    assert (outcome.code, outcome.err) == (0, "")
    with Image.open(out) as picture:
        assert picture.format == "PNG"
        colours = np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)
    assert len(colours) > 50, "more than an empty page"


def test_images_lie_side_by_side_with_their_titles_above(tmp_path):
    """Nine images are two rows; names with dollar signs are no formulas."""
    images = np.zeros((9, 8, 8, 3), np.uint8)
    images[np.arange(9), :, :, 0] = 10 * np.arange(1, 10)[:, None, None]
    show.draw(images, ["$\\no$ _formula^"] * 9, tmp_path / "sheet.png")
    pixels = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB"))
    places = []
    for i in range(9):
        down, across = np.nonzero((pixels == [10 * (i + 1), 0, 0]).all(axis=2))
        assert down.size > 1000
        places.append((round(down.mean()), round(across.mean())))
    (first_row, *_), *_, (last_row, last_column) = places
    assert [row for row, _ in places] == [first_row] * 8 + [last_row]
    assert last_row > first_row and last_column == places[0][1]
    assert [column for _, column in places[:8]] == sorted({column for _, column in places[:8]})


def test_a_broken_image_is_named_or_skipped(own, tmp_path, capfd, drawn):
    for split, name in (("train", "bee/1.png"), ("val", "cat/0.JPEG")):
        (own / split / name).write_bytes(b"")
        out = tmp_path / split / "images.png"
        flags = ["--dataset", own, "--split", split, "--image-size", 32, "--workers", 1, "--out", out]
        outcome = run_here(capfd, "show", *flags)
        assert_one_line_error(outcome, f"class {name[:3]}, image {own / split / name}: found no known image")
        assert not out.parent.exists()
        outcome = run_here(capfd, "show", *flags, "--on-error", "skip", "--max-bad", 0.2)
        assert (outcome.code, outcome.err) == (0, "")
        table = pd.read_csv(out.parent / "bad_images.csv")
        assert table[["name", "class"]].to_numpy().tolist() == [[str(own / split / name), name[:3]]]
    (train, _), (val, _) = drawn
    assert len(train) == 18, "the next one takes its place"
    assert len(val) == 8


@pytest.mark.parametrize("split", COUNTS)
def test_no_image_that_can_be_read_is_one_line(own, tmp_path, capfd, split):
    for path in (own / split).rglob("*.*"):
        path.write_bytes(b"")
    outcome = run_here(
        capfd, "show", "--dataset", own, "--split", split, "--image-size", 32, "--workers", 1,
        "--out", tmp_path / "images.png", "--on-error", "skip", "--max-bad", 1,
    )  # fmt: skip
    assert_one_line_error(outcome, "found none that can be read")
    assert not (tmp_path / "images.png").exists()


@pytest.mark.parametrize(
    ("flags", "found"),
    [
        (["--images", 0], "images: found 0, expected greater than or equal to 1"),
        (["--images", 401], "images: found 401, expected less than or equal to 400"),
        (["--epoch", 0], "epoch: found 0"),
        (["--split", "test"], "split: found test, expected 'train' or 'val'"),
        (["--seed", -1], "seed: found -1"),
        (["--mixup", -0.1], "mixup: found -0.1"),
        (["--flip", 0.2], "augmentation: found "),
        (["--resize-size", 40], "resize_size: found 40 for digits"),
        (["--image-size", 33], "image_size: found 33 for digits"),
        (["--dataset", "/none"], "data set /none: found nothing"),
        (["--out", "/proc/none/images.png"], "/proc/none"),
        (["--out", "/tmp"], "/tmp: found a folder, expected a place for a file"),
    ],
)
def test_wrong_options_are_one_line(capfd, flags, found):
    assert_one_line_error(run_here(capfd, "show", *flags), found)


def test_every_augmentation_of_training_can_be_shown():
    assert set(AugmentationSettings.model_fields) < set(show.ShowSettings.model_fields)
