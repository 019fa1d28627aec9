"""Every layout gives the same samples: paths, labels, classes and bytes."""

import io
import json
import pickle
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_layouts import (
    CLASSES,
    COUNTS,
    LAYOUTS,
    NAMED,
    NUMBERED,
    make_arrays,
    make_folders,
    make_parquet,
    make_tables,
    make_tar,
    samples,
)

from sysds_resnet.errors import NoSuchSplit, UserError
from sysds_resnet.images.pixels.decode import Picture
from sysds_resnet.images.sources.layouts import open_source


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


def write_rows(root, columns, metadata=None, splits=("train", "val")):
    for split in splits:
        table = pa.table(columns).replace_schema_metadata(metadata)
        pq.write_table(table, root / f"{split}.parquet")


PICTURES, OTHERS, CELLS = [b"image", b"image"], [b"other", b"other"], [0, 1]
TYPED = {b"huggingface": json.dumps({"info": {"features": {"photo": {"_type": "Image"}}}}).encode()}


@pytest.mark.parametrize(
    ("columns", "metadata", "unused"),
    [
        ({"mask": OTHERS, "image": PICTURES, "label": CELLS}, None, "mask"),
        ({"md5": OTHERS, "Img": PICTURES, "Label": CELLS}, None, "md5"),
        ({"md5": OTHERS, "photo": PICTURES, "label": CELLS}, TYPED, "md5"),
        ({"photo": PICTURES, "Label": [5, 6], "target": [7, 8], "label": CELLS}, None, "Label, target"),
        ({"photo": pa.array(PICTURES, pa.binary_view()), "LABEL": CELLS}, None, None),
    ],
)
def test_images_and_labels_are_found_among_columns_like_them(tmp_path, columns, metadata, unused):
    write_rows(tmp_path, columns, metadata)
    source = open_source(tmp_path, "val")
    assert [source.read(i) for i in range(2)] == PICTURES and source.labels.tolist() == CELLS
    assert [note.rpartition(": ")[2] for note in source.notes] == ([unused] if unused else [])


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        (
            {"a": OTHERS, "b": PICTURES, "label": CELLS},
            "found 2 columns that may hold images (a, b), expected",
        ),
        (
            {"image": ["0.jpg", "1.jpg"], "label": CELLS},
            "found columns image (string), label (int64), expected one",
        ),
        ({"image": PICTURES, "coarse_label": CELLS}, "coarse_label (int64), and none of labels by its name"),
    ],
)
def test_the_column_that_is_missing_is_said(tmp_path, columns, found):
    write_rows(tmp_path, columns)
    with pytest.raises(UserError) as caught:
        open_source(tmp_path, "val")
    assert found in str(caught.value)


@pytest.mark.parametrize("labels", [{"label": [-1, -1]}, {"label": pa.array([None, None], pa.int64())}, {}])
def test_a_test_split_without_labels_is_no_validation(tmp_path, labels):
    write_rows(tmp_path, {"image": PICTURES, "label": CELLS}, splits=["train"])
    write_rows(tmp_path, {"image": PICTURES, **labels}, splits=["test"])
    said = f"data set {tmp_path}: the test split is not used: it has no labels"
    assert open_source(tmp_path, "train").notes == [said]
    with pytest.raises(NoSuchSplit, match=r"no val.*parquet but a test split without labels"):
        open_source(tmp_path, "val")


@pytest.mark.parametrize("layout", ["csv", "tar", "parquet"])
def test_files_of_one_split_are_not_said_to_be_in_none(tmp_path, layout):
    LAYOUTS[layout][0](tmp_path)
    for path in [*tmp_path.glob("val*"), *tmp_path.glob("data/val*")]:
        path.unlink()
    with pytest.raises(NoSuchSplit) as caught:
        open_source(tmp_path, "val")
    assert "in no split" not in str(caught.value)


# Arrays


@pytest.mark.parametrize("width", [3, 10])
def test_one_hot_rows_tell_how_many_classes_there_are(tmp_path, width):
    make_arrays(tmp_path)
    for split in COUNTS:
        labels = np.load(tmp_path / f"{split}_labels.npy")
        np.save(tmp_path / f"{split}_labels.npy", np.eye(width)[labels])
    assert open_source(tmp_path, "val").classes == [str(i) for i in range(width)]
    np.save(tmp_path / "val_labels.npy", np.eye(5)[np.load(tmp_path / "val_labels.npy").argmax(1)])
    with pytest.raises(UserError, match=f"one-hot labels of {width} classes for train and of 5 for val"):
        open_source(tmp_path, "train")


@pytest.mark.parametrize("kind", [">i8", ">f4", "<i2", ">u2"])
def test_labels_may_be_in_either_order_of_bytes(tmp_path, kind):
    make_arrays(tmp_path)
    expected = np.load(tmp_path / "val_labels.npy")
    np.save(tmp_path / "val_labels.npy", expected.astype(kind))
    assert open_source(tmp_path, "val").labels.tolist() == expected.tolist()


@pytest.mark.parametrize(("name", "notes"), [("valid", 0), ("Validation", 0), ("test", 1)])
def test_arrays_of_splits_are_found_under_their_usual_names(tmp_path, name, notes):
    make_arrays(tmp_path)
    for what in ("images", "labels"):
        (tmp_path / f"val_{what}.npy").rename(tmp_path / f"{name}_{what}.npy")
    source = open_source(tmp_path, "val")
    assert_holds(source, "val", NUMBERED)
    assert len(source.notes) == notes
    assert_holds(open_source(tmp_path, "train"), "train", NUMBERED)


@pytest.mark.parametrize(
    ("images", "mend"),
    [
        (np.zeros((6, 0, 8, 3), np.uint8), "add images"),
        (np.zeros((6, 3, 8, 8), np.uint8), "put channels last, as x.transpose(0, 2, 3, 1) does"),
        (np.zeros((6, 8, 8, 3)), "scale to 0 to 255"),
        (np.zeros((6, 8, 8), np.uint8), "repeat grey three times, as np.repeat(x[..., None], 3, 3) does"),
        (np.zeros((6, 8, 8, 4), np.int64), "as x[..., :3] does; convert values from 0 to 255"),
    ],
)
def test_what_makes_images_of_an_array_is_said(tmp_path, images, mend):
    make_arrays(tmp_path)
    np.save(tmp_path / "val_images.npy", images)
    with pytest.raises(UserError) as caught:
        open_source(tmp_path, "val")
    assert mend in str(caught.value)


def test_an_archive_of_arrays_under_the_name_of_one_is_refused(tmp_path):
    make_arrays(tmp_path)
    np.savez(tmp_path / "x.npz", np.zeros(3))
    (tmp_path / "x.npz").rename(tmp_path / "val_images.npy")
    with pytest.raises(UserError, match=r"found no readable array .an archive of arrays"):
        open_source(tmp_path, "val")


def test_a_file_that_is_gone_is_named_when_it_is_read(tmp_path):
    make_tables(tmp_path)
    (tmp_path / "files" / "val" / CLASSES[0] / "0_1.JPEG").unlink()
    source = open_source(tmp_path, "val")
    with pytest.raises(UserError, match=r"0_1\.JPEG: found no such file or directory, expected a file"):
        source.read(1)
