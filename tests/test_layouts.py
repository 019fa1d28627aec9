"""Every layout gives the same samples: paths, labels, classes and bytes."""

import io
import pickle
import tarfile

import numpy as np
import pytest
from small_layouts import (
    CLASSES,
    COUNTS,
    LAYOUTS,
    NAMED,
    make_arrays,
    make_folders,
    make_parquet,
    make_tables,
    make_tar,
    samples,
)

from sysds_resnet.errors import UserError
from sysds_resnet.images.decode import Picture
from sysds_resnet.images.layouts import open_source


def assert_holds(source, split, classes):
    assert source.classes == classes
    assert source.labels.tolist() == [label for label, _ in samples(split)]
    for index, (label, i) in enumerate(samples(split)):
        pixels = Picture(source.read(index), source.name(index)).pixels()
        assert pixels.shape == (5, 7, 3)
        assert (pixels == [label, i, split == "val"]).all()
    names = [source.name(index) for index in range(len(source.labels))]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("split", COUNTS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_is_recognised_and_gives_its_samples(tmp_path, layout, split):
    make, classes = LAYOUTS[layout]
    make(tmp_path)
    source = open_source(tmp_path, split)
    assert_holds(source, split, classes)
    assert_holds(pickle.loads(pickle.dumps(source)), split, classes)  # noqa: S301 as to a reading process


@pytest.mark.parametrize("split", COUNTS)
def test_one_table_may_hold_both_splits(tmp_path, split):
    make_tables(tmp_path, one=True)
    assert_holds(open_source(tmp_path / "all.csv", split), split, NAMED)


@pytest.mark.parametrize("layout", ["csv, numbers", "parquet without names", "tar", "arrays"])
def test_numbered_classes_are_called_as_in_classes_txt(tmp_path, layout):
    LAYOUTS[layout][0](tmp_path)
    (tmp_path / "classes.txt").write_text("tench\nbeagle\nchainsaw\n")
    assert open_source(tmp_path, "val").classes == ["tench", "beagle", "chainsaw"]


def spoil_list(root):
    make_folders(root, lists=True)
    (root / "val_list.txt").write_text("val/x.JPEG\n")


def spoil_table(root):
    make_tables(root)
    (root / "val.csv").write_text("where,label\nx.jpg,1\n")


def spoil_labels(root):
    make_tables(root)
    (root / "val.csv").write_text("path,label\nx.jpg,\n")


def spoil_parquet(root):
    make_parquet(root)
    (root / "data" / "validation-00000-of-00002.parquet").write_bytes(b"PAR1")


def spoil_tar(root):
    make_tar(root)
    path = root / "val-000000.tar"
    path.write_bytes(path.read_bytes()[:700])


def spoil_tar_labels(root):
    with tarfile.open(root / "val-0.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("a.jpg"), io.BytesIO())


def spoil_array(root):
    make_arrays(root)
    np.save(root / "val_images.npy", np.zeros((6, 5, 7, 3)))


def spoil_classes(root):
    make_arrays(root)
    (root / "classes.txt").write_text("a\nb\n")


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (spoil_list, "val_list.txt, line 1: found 'val/x.JPEG', expected 'relative/path label'"),
        (spoil_table, "val.csv: found columns where, label, expected one called 'path'"),
        (spoil_labels, "val.csv: found row 1 without path or label"),
        (spoil_parquet, "validation-00000-of-00002.parquet: found no readable parquet file"),
        (spoil_tar, "val-000000.tar: found"),
        (spoil_tar_labels, "val-0.tar: found a without a label, expected a.cls"),
        (spoil_array, "val_images.npy: found float64 of shape (6, 5, 7, 3), expected uint8"),
        (
            spoil_classes,
            "classes.txt: found 2 different names in 2 lines, expected one for each of 3 classes",
        ),
        (lambda root: (root / "x.txt").write_text("x"), "found no sub-folders, expected one sub-folder"),
    ],
)
def test_what_is_wrong_in_a_data_set_is_one_line_that_names_the_file(tmp_path, spoil, found):
    spoil(tmp_path)
    with pytest.raises(UserError) as caught:
        open_source(tmp_path, "val")
    assert found in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_that_is_gone_is_named_when_it_is_read(tmp_path):
    make_tables(tmp_path)
    (tmp_path / "files" / "val" / CLASSES[0] / "0_1.JPEG").unlink()
    source = open_source(tmp_path, "val")
    with pytest.raises(UserError, match=r"0_1\.JPEG: found no such file or directory, expected a file"):
        source.read(1)
