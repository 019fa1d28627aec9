"""Shards of the prepare command: they hold what evaluation sees, and damage to them is found and named."""

import hashlib
import json
import pickle
import shutil

import numpy as np
import pytest
from command_line import assert_one_line_error, run_here
from damage import cut, flip
from PIL import Image
from small_preparations import (
    COUNTS,
    OPTIONS,
    SHARDS,
    SIZE,
    contents,
    files_of,
    load,
    make_source,
    prepare_small,
)

from sysds_resnet import prepare
from sysds_resnet.batches.order import sequential_order
from sysds_resnet.batches.readers import Readers
from sysds_resnet.batches.stream import BatchStream
from sysds_resnet.errors import UserError
from sysds_resnet.images import Augmentation, open_dataset
from sysds_resnet.images.pixels.decode import Picture
from sysds_resnet.images.pixels.transforms import Purpose, eval_transform, sample_rng, train_transform
from sysds_resnet.images.sources.layouts import open_source
from sysds_resnet.images.sources.photos import photos_folder


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A data set in folders; no test changes it."""
    return make_source(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def prepared(source, tmp_path_factory):
    """What it becomes; no test changes it."""
    return prepare_small(source, tmp_path_factory.mktemp("prepared") / "data")


@pytest.fixture
def copied(prepared, tmp_path):
    """A copy that a test may change."""
    return shutil.copytree(prepared, tmp_path / "copied")


# Shards


@pytest.mark.parametrize("split", COUNTS)
def test_shards_hold_what_evaluation_sees_in_the_order_of_the_files(source, prepared, split):
    shards = load(prepared, split, "images")
    assert [len(shard) for shard in shards] == SHARDS[split]
    images = np.concatenate(shards)
    assert images.dtype == np.uint8
    files = files_of(source, split)
    expected = [eval_transform(Picture(path.read_bytes(), path.name), SIZE, SIZE) for path in files]
    np.testing.assert_array_equal(images, np.stack(expected))
    for i, path in enumerate(files):
        pixels = np.asarray(Image.open(path))
        if min(pixels.shape[:2]) == SIZE:  # so that it is only cropped
            top, left = (round((side - SIZE) / 2) for side in pixels.shape[:2])
            np.testing.assert_array_equal(images[i], pixels[top : top + SIZE, left : left + SIZE])


@pytest.mark.parametrize("split", COUNTS)
def test_labels_and_classes_are_those_of_the_source(prepared, split):
    labels = load(prepared, split, "labels")
    assert [len(part) for part in labels] == SHARDS[split]
    assert np.concatenate(labels).tolist() == np.repeat([0, 1, 2], list(COUNTS[split].values())).tolist()
    assert (prepared / "classes.txt").read_text() == "ant\nbee\ncat\n"
    data = open_dataset(prepared, split)
    assert data.classes == ["ant", "bee", "cat"]
    assert data.labels.tolist() == np.concatenate(labels).tolist()


def test_the_manifest_has_counts_and_checksums_of_all_files(prepared):
    manifest = json.loads((prepared / "manifest.json").read_text())
    assert manifest["shards"] == SHARDS
    assert manifest["image_size"] == [SIZE, SIZE] and manifest["classes"] == ["ant", "bee", "cat"]
    files = contents(prepared)
    assert files.keys() - manifest["files"].keys() == {"manifest.json", "classes.txt"}
    assert manifest["files"] == {
        name: {"bytes": len(files[name]), "sha256": hashlib.sha256(files[name]).hexdigest()}
        for name in manifest["files"]
    }


def test_evaluation_at_seven_eighths_sees_the_same_pixels_as_from_the_files(tmp_path):
    assert prepare.main(
        ["--dataset", "photos", "--splits", "val", "--image-size", "64", "--out", str(tmp_path / "out")]
    ) == 0  # fmt: skip
    shards = open_dataset(tmp_path / "out", "val", image_size=56)
    files = open_dataset(photos_folder(), "val", image_size=56, resize_size=64)
    assert len(shards) == len(files) == 120
    for i in range(120):
        np.testing.assert_array_equal(shards.image(i, 0), files.image(i, 0), err_msg=files.name(i))


def test_training_images_from_shards_are_augmented(prepared):
    augmentation = Augmentation(policy="randaugment", color_jitter=0.4, erasing=0.5)
    data = open_dataset(prepared, "train", image_size=24, augmentation=augmentation, seed=3)
    stored = np.concatenate(load(prepared, "train", "images"))
    for i in range(len(data)):
        for epoch in range(2):
            rng = sample_rng(3, Purpose.AUGMENT, epoch, i)
            expected = train_transform(Picture(stored[i], "stored"), 24, rng, augmentation)
            np.testing.assert_array_equal(data.image(i, epoch), expected)
        assert (data.image(i, 0) != data.image(i, 1)).any()


def test_mean_and_deviation_are_the_data_sets_own(tmp_path):
    flags = ["--dataset", "digits", "--splits", "val", "--out", str(tmp_path)]
    assert prepare.main(flags) == 0
    data, digits = open_dataset(tmp_path, "val", image_size=32, resize_size=32), open_dataset("digits", "val")
    np.testing.assert_array_equal(data.mean, digits.mean)
    np.testing.assert_array_equal(data.std, digits.std)
    assert all((data.image(i, 0) == digits.image(i, 0)).all() for i in range(len(digits)))


def test_a_source_is_sent_to_processes_without_its_images(prepared):
    source = open_source(prepared, "train")
    before = pickle.dumps(source)
    images = np.stack([source.read(i) for i in range(13)])
    after = pickle.dumps(source)
    assert len(after) == len(before) < images.nbytes / 10
    sent = pickle.loads(after)  # noqa: S301 as to a reading process
    np.testing.assert_array_equal(np.stack([sent.read(i) for i in range(13)]), images)
    assert [sent.name(i) for i in (4, 5)] == [
        f"{prepared / f'train-0000{shard}-images.npy'}, image {place}" for shard, place in ((0, 4), (1, 0))
    ]


def test_processes_read_from_shards(prepared):
    data = open_dataset(prepared, "train", image_size=24)
    images = np.stack([data.image(i, 0) for i in range(13)])  # maps all shards here
    with (
        Readers([data], 2) as readers,
        BatchStream(data, sequential_order(13), 4, readers, drop_last=False, epochs=1) as stream,
    ):
        batches = list(stream)
    np.testing.assert_array_equal(np.concatenate([batch.images for batch in batches]), images)
    assert np.concatenate([batch.labels for batch in batches]).tolist() == data.labels.tolist()


def test_one_split_can_be_prepared_alone(source, tmp_path, capfd):
    """Of a data set that has no other, here PATH/CLASS."""
    outcome = run_here(capfd, "prepare", "--dataset", source / "val", "--out", tmp_path / "out", *OPTIONS)
    assert_one_line_error(outcome, "found no train/ to train on", "or prepare what is there with --splits")
    outcome = run_here(
        capfd, "prepare", "--dataset", source / "val", "--splits", "val", "--out", tmp_path / "out", *OPTIONS
    )
    assert (outcome.code, outcome.err) == (0, "")
    assert [path.name for path in sorted(tmp_path.glob("out/*-*"))] == [
        f"val-0000{shard}-{kind}.npy" for shard in (0, 1) for kind in ("images", "labels")
    ]
    assert len(open_dataset(tmp_path / "out", "val")) == 6
    with pytest.raises(UserError, match="found no train images, expected some: prepare that split too"):
        open_dataset(tmp_path / "out", "train")


# Damage


def set_manifest(root, **values):
    path = root / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (
            lambda root: cut(root / "train-00001-images.npy"),
            "train-00001-images.npy: found 7744 bytes, expected 15488 as in manifest.json",
        ),
        (lambda root: (root / "train-00002-images.npy").unlink(), "train-00002-images.npy: found 0 bytes"),
        (lambda root: cut(root / "train-00000-labels.npy"), "train-00000-labels.npy: found 84 bytes"),
        (lambda root: flip(root / "train-00000-labels.npy", 0), "train-00000-labels.npy: found"),
        (lambda root: cut(root / "manifest.json"), "manifest.json: found no readable manifest"),
        (lambda root: (root / "manifest.json").write_text("[]"), "manifest.json: found no readable manifest"),
        (lambda root: (root / "manifest.json").write_bytes(b"\xff"), "found no readable manifest"),
        (lambda root: set_manifest(root, more=1), "manifest.json: found no readable manifest"),
        (lambda root: set_manifest(root, files={}), "train-00000-images.npy"),
        (lambda root: set_manifest(root, format="shards 2"), "manifest.json: found format 'shards 2'"),
        (lambda root: (root / "manifest.json").unlink(), "found no train/ to train on"),
    ],
)
def test_damage_is_found_on_opening_and_the_file_named_in_one_line(copied, damage, found):
    damage(copied)
    with pytest.raises(UserError) as caught:
        open_dataset(copied, "train")
    assert found in str(caught.value) and "\n" not in str(caught.value)


def test_a_shard_that_is_no_array_any_more_is_named_when_it_is_read(copied):
    flip(copied / "train-00001-images.npy", 0)
    data = open_dataset(copied, "train", image_size=24)
    data.image(4, 0)
    with pytest.raises(UserError, match=r"train-00001-images\.npy"):
        data.image(5, 0)
