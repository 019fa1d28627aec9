"""Labels in columns of tables and parquet files and in arrays: which types, shapes and names are taken."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_layouts import COUNTS, make_arrays, samples
from written_labels import error_of, opened, write_arrays, write_csv, write_parquet


@pytest.mark.parametrize("write", [write_parquet, write_arrays])
def test_typed_floats_are_numbers_if_they_are_whole(tmp_path, write):
    write(tmp_path, {"train": [2.0, 0.0, 1.0], "val": [1.0]})
    assert opened(tmp_path, "train").labels.tolist() == [2, 0, 1]
    for wrong in (1.5, float("inf")):
        write(tmp_path, {"train": [2.0, 0.0, 1.0], "val": [wrong]})
        assert f"found label {wrong}, expected whole numbers" in error_of(tmp_path, "train")


@pytest.mark.parametrize("write", [write_csv, write_parquet, write_arrays])
def test_booleans_are_two_classes(tmp_path, write):
    write(tmp_path, {"train": [True, False], "val": [False]})
    source = opened(tmp_path, "train")
    assert source.labels.tolist() == [1, 0] and source.classes == ["False", "True"]


def test_names_that_pandas_takes_for_missing_are_names(tmp_path):
    write_csv(tmp_path, {"train": ["NA", "None", "nan", "007"], "val": ["None"]})
    assert opened(tmp_path, "val").classes == ["007", "NA", "None", "nan"]


def test_a_label_that_is_missing_among_floats_is_none(tmp_path):
    write_csv(tmp_path, {"train": ["0.0", "nan", "1.0"], "val": ["0.0"]})
    assert "train.csv, row 2: found no label" in error_of(tmp_path, "train")


def test_columns_are_found_in_either_case_and_cells_after_spaces(tmp_path):
    (tmp_path / "train.CSV").write_text("File_Name , Label\na.jpg, cat\nb.jpg, dog\n")
    (tmp_path / "Val.TSV").write_text("PATH\tclass\nc.jpg\tdog\n")
    assert opened(tmp_path, "train").labels.tolist() == [0, 1]
    assert opened(tmp_path, "val").labels.tolist() == [1]


def test_rows_with_more_cells_than_columns_are_refused_rather_than_shifted(tmp_path):
    (tmp_path / "train.csv").write_text("path,label\na,b.jpg,0\nc,d.jpg,1\n")
    assert "train.csv: found no readable table" in error_of(tmp_path, "train")


def test_pandas_reads_the_same_table(tmp_path):
    write_csv(tmp_path, {"train": ["b", "a", "c"], "val": ["a"]})
    table = pd.read_csv(tmp_path / "train.csv")
    assert opened(tmp_path, "train").labels.tolist() == pd.Categorical(table["label"]).codes.tolist()


# Parquet


@pytest.mark.parametrize("split", COUNTS)
def test_lists_of_classes_in_another_order_are_matched_by_name(tmp_path, split):
    names = {"train": ["red", "green", "blue"], "val": ["blue", "red", "green", "unused"]}
    write_parquet(tmp_path, {"train": [0, 1, 2], "val": [0, 1, 2, 0]}, names=names)
    source = opened(tmp_path, split)
    assert source.classes == ["red", "green", "blue"]
    assert source.labels.tolist() == {"train": [0, 1, 2], "val": [2, 0, 1, 2]}[split]


def test_a_class_that_only_validation_lists_is_refused(tmp_path):
    names = {"train": ["red", "green"], "val": ["green", "Red"]}
    write_parquet(tmp_path, {"train": [0, 1], "val": [0, 1]}, names=names)
    assert "val.parquet, row 1: found label 'Red', which no training image has (but 'red'" in error_of(
        tmp_path, "val"
    )


def test_tables_in_parquet_are_matched_by_name_too(tmp_path):
    for split, names in (("train", ["red", "green"]), ("val", ["green", "red"])):
        info = {"info": {"features": {"label": {"names": names}}}}
        table = pa.table({"path": ["a.jpg", "b.jpg"], "label": [0, 1]})
        table = table.replace_schema_metadata({b"huggingface": json.dumps(info).encode()})
        pq.write_table(table, tmp_path / f"{split}.parquet")
    assert opened(tmp_path, "val").labels.tolist() == [1, 0]


def test_files_of_one_split_that_differ_are_refused(tmp_path):
    write_parquet(tmp_path, {"train-0": [0, 1], "val": [0]})
    for other, found in (
        ({"image": [b"x"], "label": ["red"]}, "named labels in 'label'"),
        ({"image": [b"x"], "class": [1]}, "numbered labels in 'class'"),
        ({"picture": [b"x"], "label": [1]}, "images in 'picture'"),
        ({"label": [1]}, "columns label (int64), expected one of images' bytes"),
        ({"image": [b"x"], "label": [[1, 0]]}, "labels of type list"),
        ({"image": [b"x"], "label": [None]}, "expected one number or name for each image"),
    ):
        pq.write_table(pa.table(other), tmp_path / "train-1.parquet")
        text = error_of(tmp_path, "val")
        assert f"{tmp_path / 'train-1.parquet'}: found {found}" in text or found in text


def test_some_files_with_names_of_classes_and_some_without_are_refused(tmp_path):
    write_parquet(tmp_path, {"train": [0, 1]}, names={"train": ["red", "green"]})
    write_parquet(tmp_path, {"val": [0, 1]})
    assert "val.parquet, row 0: found no names of the classes" in error_of(tmp_path, "train")


def test_a_null_label_is_named_with_its_file_and_row(tmp_path):
    write_parquet(tmp_path, {"train": [0, 1, 0, None], "val": [0]})
    assert f"{tmp_path / 'train.parquet'}, row 3: found no label" in error_of(tmp_path, "val")


# Arrays


@pytest.mark.parametrize(
    "form",
    [
        lambda labels: labels.reshape(-1, 1),
        lambda labels: np.eye(3)[labels],
        lambda labels: np.eye(3, dtype=bool)[labels],
        lambda labels: labels.astype(np.float32),
        lambda labels: labels.astype(np.uint8),
    ],
)
def test_labels_in_columns_and_one_hot_are_taken(tmp_path, form):
    make_arrays(tmp_path)
    np.save(tmp_path / "train_labels.npy", form(np.load(tmp_path / "train_labels.npy")))
    assert opened(tmp_path, "train").labels.tolist() == [label for label, _ in samples("train")]


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        (
            np.full((12, 3), 1 / 3),
            "float64 of shape (12, 3), expected integers from 0 of shape (12,), or one-hot",
        ),
        (np.ones((12, 3), int), "int64 of shape (12, 3), expected"),
        (np.zeros((12, 3)), "float64 of shape (12, 3), expected"),
        (np.zeros((12, 0)), "float64 of shape (12, 0), expected"),
        (np.zeros(11, int), "int64 of shape (11,), expected"),
        (np.zeros((), int), "int64 of shape (), expected"),
        (np.zeros(12, complex), "complex128 of shape (12,), expected"),
        (np.full(12, np.nan), "no label, expected one for each image"),
        (np.full(12, 2**63, np.uint64), f"label {2**63}, and "),
    ],
)
def test_labels_of_other_shapes_and_kinds_are_refused(tmp_path, labels, found):
    make_arrays(tmp_path)
    np.save(tmp_path / "train_labels.npy", labels)
    text = error_of(tmp_path, "train")
    assert "train_labels.npy" in text and f": found {found}" in text
