"""The verify command, which finds what is broken, and the show command, which draws what training sees."""

import csv
import io
import shutil
import tarfile
from contextlib import nullcontext

import numpy as np
import pandas as pd
import pytest
from command_line import assert_one_line_error, run_here
from PIL import Image

from sysds_resnet import prepare, show
from sysds_resnet.data_settings import AugmentationSettings
from sysds_resnet.images import Augmentation, open_dataset
from sysds_resnet.images.mixing import Mixing

CLASSES = ["ant", "bee", "cat"]
COUNTS = {"train": 6, "val": 3}  # of each class
REPORT = """\
train: 18 images, {} bad, 3 classes of 6 to 6 images
val: 9 images, {} bad, 3 classes of 3 to 3 images
"""


def make_source(root):
    """Lists of files in a folder for each class: progressive and other JPEG, and PNG."""
    rng = np.random.default_rng(0)
    for split, count in COUNTS.items():
        lines = []
        for label, name in enumerate(CLASSES):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                path = root / split / name / f"{i}.{'png' if i % 3 == 1 else 'JPEG'}"
                coarse = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8))
                coarse.resize((60, 45 + i), Image.Resampling.BICUBIC).save(path, progressive=i % 3 == 2)
                lines.append(f"{path.relative_to(root)} {label}\n")
        (root / f"{split}_list.txt").write_text("".join(lines))
    return root


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A data set; no test changes it."""
    return make_source(tmp_path_factory.mktemp("source"))


@pytest.fixture
def own(tmp_path):
    """A data set that a test may change."""
    return make_source(tmp_path / "own")


def flip(path, position):
    data = bytearray(path.read_bytes())
    data[position] ^= 0xFF
    path.write_bytes(data)


def cut(path, kept):
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


# verify


def test_a_good_data_set_is_reported_as_good(source, tmp_path, capfd):
    outcome = run_here(capfd, "verify", source, "--out", tmp_path / "bad.csv", "--workers", 1)
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out == REPORT.format(0, 0) + f"{source}: all images can be read\n"
    assert not (tmp_path / "bad.csv").exists()


def write_odd_pictures(folder):
    """Pictures of kinds that are seldom, but in order."""
    Image.new("RGB", (1, 1)).save(folder / "0.JPEG")
    Image.new("P", (30, 20)).save(folder / "1.png")
    Image.new("CMYK", (30, 20)).save(folder / "2.JPEG")
    Image.new("L", (1, 500)).save(folder / "3.JPEG")
    Image.new("I;16", (30, 20)).save(folder / "4.png")


BROKEN = [
    ("train", "ant/0.JPEG", lambda path: cut(path, 0.5), "found a damaged file"),
    ("train", "ant/2.JPEG", lambda path: cut(path, 0.9), "found a damaged file"),  # progressive
    ("train", "ant/3.JPEG", lambda path: path.write_bytes(b""), "found no known image format"),
    ("train", "bee/1.png", lambda path: path.write_text("<html>not found</html>\n"), "no known image format"),
    ("train", "bee/4.png", lambda path: cut(path, 0.9), "found a damaged file"),
    ("train", "cat/1.png", lambda path: flip(path, path.stat().st_size // 2), "found a damaged file"),
    ("train", "cat/5.JPEG", lambda path: path.unlink(), "found no such file or directory"),
    ("val", "bee/0.JPEG", lambda path: (path.unlink(), path.mkdir()), "found is a directory"),
    ("val", "bee/2.JPEG", lambda path: cut(path, 0.02), "found no known image format"),
]


def test_all_broken_images_are_listed_once_and_no_others(own, tmp_path, capfd):
    write_odd_pictures(own / "val" / "cat")
    for split, name, spoil, _ in BROKEN:
        spoil(own / split / name)
    listings = []
    for workers in (1, 2):
        out = tmp_path / "reports" / f"{workers}.csv"
        outcome = run_here(capfd, "verify", own, "--out", out, "--workers", workers)
        assert (outcome.code, outcome.err) == (1, "")
        assert outcome.out == (
            REPORT.format(7, 2) + f"{own}: 9 images or files cannot be used, listed in {out}\n"
        )
        listings.append(out.read_text())
    assert listings[0] == listings[1]
    found = rows(out)
    for row, (split, name, _, reason) in zip(found, BROKEN, strict=True):
        path = str(own / split / name)
        assert list(row) == ["split", "name", "class", "reason"]
        assert (row["split"], row["name"], row["class"]) == (split, path, name[:3])
        assert reason in row["reason"] and path in row["reason"] and "\n" not in row["reason"]


@pytest.mark.parametrize("names", [["val"], ["val", "val_list.txt"]])
def test_a_split_that_is_not_there_is_left_out(source, tmp_path, capfd, names):
    for name in names:
        (tmp_path / name).symlink_to(source / name)
    outcome = run_here(capfd, "verify", tmp_path, "--out", tmp_path / "bad.csv", "--workers", 1)
    assert (outcome.code, outcome.err) == (0, "")
    first, *others = outcome.out.splitlines()
    assert first.startswith(f"left out: data set {tmp_path}: found ") and "train" in first
    assert others == [
        "val: 9 images, 0 bad, 3 classes of 3 to 3 images",
        f"{tmp_path}: all images can be read",
    ]


def empty_a_class(root):
    for split in COUNTS:
        (root / f"{split}_list.txt").unlink()
    for path in (root / "train" / "bee").iterdir():
        path.unlink()


def cut_a_tar(root):
    picture = (root / "val" / "ant" / "1.png").read_bytes()
    for path in root.iterdir():
        path.unlink() if path.is_file() else shutil.rmtree(path)
    for split in COUNTS:
        with tarfile.open(root / f"{split}.tar", "w") as archive:
            for name, data in (("0.png", picture), ("0.cls", b"0")):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    cut(root / "train.tar", 0.03)


@pytest.mark.parametrize(
    ("spoil", "found"),
    [(empty_a_class, "train/bee: found no image file"), (cut_a_tar, "train.tar: found")],
)
def test_a_split_that_is_there_but_cannot_be_opened_is_no_success(own, tmp_path, capfd, spoil, found):
    spoil(own)
    outcome = run_here(capfd, "verify", own, "--out", tmp_path / "bad.csv", "--workers", 1)
    assert outcome.code != 0
    assert found in outcome.out + outcome.err


def test_nothing_to_verify_is_one_line(tmp_path, capfd):
    outcome = run_here(capfd, "verify", tmp_path / "none")
    assert_one_line_error(outcome, f"data set {tmp_path / 'none'}: found nothing")
    outcome = run_here(capfd, "verify", tmp_path)
    assert_one_line_error(outcome, tmp_path, "found no ")


# verify, of a prepared data set


@pytest.fixture(scope="module")
def prepared(engine, tmp_path_factory):
    """With matrices; no test changes it."""
    folder = tmp_path_factory.mktemp("prepared") / "data"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepare, "Engine", lambda **_: nullcontext(engine))
        flags = ["--dataset", "synthetic", "--image-size", "8", "--shard-images", "150", "--matrices"]
        assert prepare.main([*flags, "--out", str(folder)]) == 0
    return folder


@pytest.fixture
def copied(prepared, tmp_path):
    """A copy that a test may change."""
    return shutil.copytree(prepared, tmp_path / "copied")


def test_a_prepared_data_set_is_reported_as_good(prepared, tmp_path, capfd):
    outcome = run_here(capfd, "verify", prepared, "--out", tmp_path / "bad.csv", "--workers", 1)
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out == (
        "train: 256 images, 0 bad, 10 classes of 25 to 26 images\n"
        "val: 64 images, 0 bad, 10 classes of 6 to 7 images\n"
        f"{prepared}: all images can be read\n"
    )
    assert not (tmp_path / "bad.csv").exists()


@pytest.mark.parametrize(
    ("name", "position"),
    [
        ("train-00001-images.npy", 5000),
        ("train-00001-images.npy", 0),  # no array any more
        ("train-00001-images.npy", 61),  # in the shape
        ("val-00000-labels.npy", 128 + 8 * 10),  # another class, or none
        ("val-00000-labels.npy", -1),  # below 0
        ("val-00000-labels.npy", 0),
        ("matrices/train_X/part-000000", 5000),
        ("matrices/val_X.mtd", 10),
        ("matrices/val_Y", -1),
    ],
)
def test_a_flipped_byte_is_found_and_its_file_named(copied, tmp_path, capfd, name, position):
    flip(copied / name, position)
    outcome = run_here(capfd, "verify", copied, "--out", tmp_path / "bad.csv", "--workers", 1)
    assert (outcome.code, outcome.err) == (1, "")
    assert f"listed in {tmp_path / 'bad.csv'}" in outcome.out
    row = rows(tmp_path / "bad.csv")[0]
    assert (row["split"], row["name"], row["class"]) == ("", str(copied / name), "")
    assert "SHA-256" in row["reason"]
    assert {row["name"].partition(", image ")[0] for row in rows(tmp_path / "bad.csv")} == {
        str(copied / name)
    }


def test_all_files_that_are_cut_off_or_gone_are_named(copied, tmp_path, capfd):
    damaged = ["train-00000-images.npy", "train-00001-labels.npy", "val-00000-images.npy", "matrices/val_Y"]
    for name in damaged[:2]:
        cut(copied / name, 0.5)
    for name in damaged[2:]:
        (copied / name).unlink()
    outcome = run_here(capfd, "verify", copied, "--out", tmp_path / "bad.csv", "--workers", 1)
    assert (outcome.code, outcome.err) == (1, "")
    assert [row["name"] for row in rows(tmp_path / "bad.csv")] == [str(copied / name) for name in damaged]


def test_a_data_set_that_is_not_prepared_to_its_end_is_one_line(copied, tmp_path, capfd):
    (copied / "manifest.json").rename(copied / "progress.json")
    outcome = run_here(capfd, "verify", copied, "--out", tmp_path / "bad.csv", "--workers", 1)
    assert_one_line_error(outcome, copied, "run sysds_resnet.prepare again as before, and it goes on")


def test_a_damaged_manifest_is_one_line(copied, tmp_path, capfd):
    cut(copied / "manifest.json", 0.5)
    outcome = run_here(capfd, "verify", copied, "--out", tmp_path / "bad.csv", "--workers", 1)
    assert_one_line_error(outcome, copied / "manifest.json", "found no readable manifest")


# show


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
        ([], Augmentation()),
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
        capfd, "show", "--dataset", source, "--split", "val", "--image-size", 24, "--resize-size", 40,
        "--policy", "randaugment", "--mixup", 1, "--workers", 1,
    )  # fmt: skip
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out == "images.png: 9 val images of 24 pixels\n", "there are no more"
    data = open_dataset(source, "val", image_size=24, resize_size=40)
    assert len(assert_seen(*drawn[0], data, 0)) == 9


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
    share = parts[0, 2]
    assert titles == [
        f"{share:.2f} {own} + {1 - share:.2f} {other}"
        for own, other in zip(names, [names[-1], *names[:-1]], strict=True)
    ]


def test_titles_are_names_of_classes_with_their_shares_where_mixed():
    classes = ["ant", "n02102040 English springer"]
    assert show._title(np.int64(0), classes) == "ant"
    assert show._title(np.int64(1), classes) == "n02102040 English "
    assert show._title(np.array([0, 1, 0.25]), classes) == "0.25 ant + 0.75 n02102040"


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
        (["--image-size", 30], "image_size: found 30 for digits"),
        (["--dataset", "/none"], "data set /none: found nothing"),
        (["--out", "/proc/none/images.png"], "/proc/none"),
    ],
)
def test_wrong_options_are_one_line(capfd, flags, found):
    assert_one_line_error(run_here(capfd, "show", *flags), found)


def test_every_augmentation_of_training_can_be_shown():
    assert set(AugmentationSettings.model_fields) < set(show.ShowSettings.model_fields)
