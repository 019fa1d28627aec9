"""Digests of data sets: the same wherever a data set lies, and others when its images or labels change."""

import shutil

import numpy as np
import pytest
from small_layouts import CLASSES, LAYOUTS, make_folders, make_tables

from sysds_resnet import prepare
from sysds_resnet.images import ArrayDataset, SyntheticDataset, open_dataset
from sysds_resnet.images.identity import digest, digest_of_sizes
from sysds_resnet.images.views import View, ViewDataset


def arrays(labels=(0, 1, 1), classes=("a", "b")):
    images = np.zeros((len(labels), 4, 4, 3), np.uint8)
    return ArrayDataset(images, np.array(labels), classes, mean=np.zeros(3), std=np.ones(3))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_data_set_that_is_moved_keeps_its_digest(tmp_path, monkeypatch, layout):
    here, there = tmp_path / "here", tmp_path / "an other place"
    here.mkdir()
    LAYOUTS[layout][0](here)
    shutil.copytree(here, there)
    monkeypatch.chdir(there)
    for split in ("train", "val"):
        ways = [here, there, ".", "../here", f"{there}/"]
        sets = [open_dataset(path, split) for path in ways]
        assert len({digest(dataset) for dataset in sets}) == 1
        assert len({digest_of_sizes(dataset) for dataset in sets}) == 1
        assert digest(ViewDataset(sets[0], [View(), View(mirrored=True)])) == digest(sets[0])
    assert digest(open_dataset(here, "train")) != digest(sets[0])


def test_a_moved_table_and_prepared_shards_keep_their_digests(tmp_path):
    make_tables(tmp_path, one=True)
    assert (
        prepare.main(["--dataset", "synthetic", "--image-size", "8", "--out", str(tmp_path / "shards")]) == 0
    )
    shutil.copytree(tmp_path, tmp_path / "copy" / "deeper")
    for name in ("all.csv", "shards"):
        here, there = (open_dataset(root / name, "val") for root in (tmp_path, tmp_path / "copy" / "deeper"))
        assert digest(here) == digest(there) and digest_of_sizes(here) == digest_of_sizes(there)


def move_between_classes(root):
    (root / "val" / CLASSES[0] / "0_0.JPEG").rename(root / "val" / CLASSES[1] / "0_0.JPEG")


def remove(root):
    (root / "val" / CLASSES[0] / "0_0.JPEG").unlink()


def rename_class(root):
    for split in ("train", "val"):
        (root / split / CLASSES[2]).rename(root / split / "n99999999")


def rename_image(root):
    (root / "val" / CLASSES[0] / "0_0.JPEG").rename(root / "val" / CLASSES[0] / "00.JPEG")


@pytest.mark.parametrize("change", [move_between_classes, remove, rename_class, rename_image])
def test_changed_images_and_classes_have_another_digest(tmp_path, change):
    make_folders(tmp_path)
    before = digest(open_dataset(tmp_path, "val"))
    change(tmp_path)
    assert digest(open_dataset(tmp_path, "val")) != before


def test_another_size_of_a_file_shows_in_the_digest_of_sizes_alone(tmp_path):
    make_folders(tmp_path)
    data = open_dataset(tmp_path, "val")
    names, sizes = digest(data), digest_of_sizes(data)
    image = tmp_path / "val" / CLASSES[0] / "0_0.JPEG"
    image.write_bytes(image.read_bytes() + b"more")
    assert digest(data) == names and digest_of_sizes(data) != sizes
    image.unlink()
    assert digest(data) == names and digest_of_sizes(data) != sizes


def test_data_sets_in_memory_differ_by_their_labels_classes_and_numbers():
    digests = [
        digest(data)
        for data in (
            arrays(),
            arrays((0, 1, 0)),
            arrays((0, 1)),
            arrays(classes=("a", "c")),
            arrays(classes=("a\0b", "")),
            SyntheticDataset("train", num_images=3, num_classes=2),
            SyntheticDataset("val", num_images=3, num_classes=2),
            SyntheticDataset("val", num_images=3, num_classes=2, seed=1),
            open_dataset("digits", "val"),
        )
    ]
    assert len(set(digests)) == len(digests)
    assert digest(arrays()) == digests[0]
