"""Labels mean the same class in both splits, in every layout; what cannot be meant is one line."""

import io
import json
import tarfile
import tracemalloc

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from small_layouts import CLASSES, COUNTS, make_arrays, make_folders, make_tar, samples

from sysds_resnet.classes.file import check_class_names, classes_text, named_classes
from sysds_resnet.errors import NoSuchSplit, UserError
from sysds_resnet.images import open_dataset
from sysds_resnet.images.sources.layouts import open_source

# Each writes the labels of both splits, text as it stands in files, in one layout.


def write_csv(root, labels):
    for split, some in labels.items():
        rows = "".join(f"{split}/{i}.jpg,{label}\n" for i, label in enumerate(some))
        (root / f"{split}.csv").write_text(f"path,label\n{rows}")


def write_one_table(root, labels):
    rows = [
        f"{split},{split}/{i}.jpg,{label}\n" for split, some in labels.items() for i, label in enumerate(some)
    ]
    (root / "all.csv").write_text("split,path,label\n" + "".join(rows))


def write_lists(root, labels):
    for split, some in labels.items():
        lines = [f"{split}/{i}.jpg {label}\n" for i, label in enumerate(some)]
        (root / f"{split}_list.txt").write_text("".join(lines))


def write_tars(root, labels, form="{}", ending="cls"):
    for split, some in labels.items():
        with tarfile.open(root / f"{split}-0.tar", "w") as archive:
            for i, label in enumerate(some):
                for name, data in ((f"{i}.jpg", b"image"), (f"{i}.{ending}", form.format(label).encode())):
                    member = tarfile.TarInfo(name)
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))


def write_parquet(root, labels, kind=None, names=None):
    for split, some in labels.items():
        columns = {"image": [b"image"] * len(some), "label": pa.array(some, kind)}
        listed = {"label": {"names": (names or {}).get(split), "_type": "ClassLabel"}}
        info = {b"huggingface": json.dumps({"info": {"features": listed}}).encode()}
        table = pa.table(columns).replace_schema_metadata(info if names else None)
        pq.write_table(table, root / f"{split}.parquet", row_group_size=2)


def write_arrays(root, labels, dtype=None):
    for split, some in labels.items():
        np.save(root / f"{split}_images.npy", np.zeros((len(some), 4, 4, 3), np.uint8))
        np.save(root / f"{split}_labels.npy", np.array(some, dtype))


TEXT = {
    "csv": write_csv,
    "one table": write_one_table,
    "lists": write_lists,
    "tar": write_tars,
    "tar, json": lambda root, labels: write_tars(root, labels, '{{"label": "{}"}}', "json"),
    "tar, txt": lambda root, labels: write_tars(root, labels, "{}\n", "txt"),
}
NAMES = {**TEXT, "parquet": write_parquet}
NUMBERS = {
    **TEXT,
    "tar, numbers in json": lambda root, labels: write_tars(root, labels, '{{"label": {}}}', "json"),
    "parquet": write_parquet,
    "parquet, decimals": lambda root, labels: write_parquet(root, labels, pa.decimal128(30)),
    "arrays": write_arrays,
}


def opened(root, split):
    path = root / "all.csv"
    return open_source(path if path.exists() else root, split)


def error_of(root, split):
    with pytest.raises(UserError) as caught:
        opened(root, split)
    text = str(caught.value)
    assert "\n" not in text and "found" in text and "expected" in text
    return text


@pytest.mark.parametrize("layout", NAMES)
def test_names_mean_the_same_class_in_both_splits(tmp_path, layout):
    NAMES[layout](tmp_path, {"train": ["red", "blue", "green", "red"], "val": ["green", "red"]})
    train, val = opened(tmp_path, "train"), opened(tmp_path, "val")
    assert train.classes == val.classes == ["blue", "green", "red"]
    assert train.labels.tolist() == [2, 0, 1, 2]
    assert val.labels.tolist() == [1, 2]
    assert train.notes == val.notes
    assert [note.partition(": ")[2] for note in val.notes] == [
        "1 of 3 classes have no validation images: blue"
    ]


@pytest.mark.parametrize("split", COUNTS)
@pytest.mark.parametrize("layout", NAMES)
def test_a_name_that_no_training_image_has_is_found_on_opening_either_split(tmp_path, layout, split):
    NAMES[layout](tmp_path, {"train": ["cat", "dog"], "val": ["dog", "Cat"]})
    text = error_of(tmp_path, split)
    assert "found label 'Cat', which no training image has (but 'cat', which differs by case" in text
    assert str(tmp_path) in text and any(
        place in text for place in ("row 2", "row 4", "line 2", "/1:", "row 1")
    )


def test_a_space_after_a_name_is_found_before_training(tmp_path):
    write_csv(tmp_path, {"train": ["cat", "dog"], "val": ["dog", "cat "]})
    assert "val.csv, row 2: found label 'cat ', which no training image has (but 'cat'" in error_of(
        tmp_path, "train"
    )


@pytest.mark.parametrize("split", COUNTS)
@pytest.mark.parametrize("layout", NUMBERS)
def test_a_number_that_no_training_image_has_is_found_on_opening_either_split(tmp_path, layout, split):
    NUMBERS[layout](tmp_path, {"train": [0, 1, 1], "val": [1, 2]})
    assert "found label 2, which no training image has" in error_of(tmp_path, split)


@pytest.mark.parametrize("layout", NUMBERS)
def test_labels_from_one_are_noted_as_a_class_without_images(tmp_path, layout):
    NUMBERS[layout](tmp_path, {"train": [1, 2, 3], "val": [3, 1]})
    source = opened(tmp_path, "train")
    assert source.labels.tolist() == [1, 2, 3] and source.classes == ["0", "1", "2", "3"]
    assert any(
        note.endswith("no image has label 0; labels count from 0, not from 1") for note in source.notes
    )
    assert any(note.endswith("1 of 4 classes have no training images: 0") for note in source.notes)


@pytest.mark.parametrize("layout", NUMBERS)
def test_a_class_between_others_without_training_images_is_noted(tmp_path, layout):
    NUMBERS[layout](tmp_path, {"train": [0, 5, 2], "val": [2]})
    notes = opened(tmp_path, "val").notes
    assert any("3 of 6 classes have no training images: 1, 3, 4" in note for note in notes)


@pytest.mark.parametrize("label", [1440764, 3_000_000_000, 2**62, -1, -(2**40)])
@pytest.mark.parametrize("layout", NUMBERS)
def test_numbers_that_cannot_be_labels_are_refused_at_once_and_without_memory(tmp_path, layout, label):
    NUMBERS[layout](tmp_path, {"train": [0, 1, label], "val": [0]})
    tracemalloc.start()
    text = error_of(tmp_path, "train")
    assert tracemalloc.get_traced_memory()[1] < 50_000_000
    tracemalloc.stop()
    assert f"found label {label}" in text and str(tmp_path) in text
    assert any(place in text for place in ("row 3", "line 3", "/2:", "row 2", "label 2:")), text


@pytest.mark.parametrize("layout", TEXT)
def test_numbers_of_any_length_are_refused(tmp_path, layout):
    TEXT[layout](tmp_path, {"train": [0, "9" * 40], "val": [0]})
    assert f"found label {'9' * 40}" in error_of(tmp_path, "train")


def test_large_gaps_are_allowed_where_all_classes_are_named(tmp_path):
    write_csv(tmp_path, {"train": [3, 500, 999], "val": [500]})
    assert "found label 999, and 3 different labels in all" in error_of(tmp_path, "train")
    (tmp_path / "classes.txt").write_text("".join(f"class {i}\n" for i in range(1000)))
    source = opened(tmp_path, "train")
    assert source.labels.tolist() == [3, 500, 999] and len(source.classes) == 1000
    assert any(
        "997 of 1000 classes have no training images: class 0, class 1" in note for note in source.notes
    )
    write_csv(tmp_path, {"train": [3, 500, 999], "val": [7]})
    assert opened(tmp_path, "train").labels.tolist() == [3, 500, 999], "class 7 is known, though not learned"


@pytest.mark.parametrize("layout", TEXT)
def test_whole_floats_are_numbers_and_others_are_refused(tmp_path, layout):
    labels = {"train": ["2.0", "10.0", *map(str, range(10))], "val": ["1"]}
    TEXT[layout](tmp_path, labels)
    assert opened(tmp_path, "train").labels.tolist() == [2, 10, *range(10)]
    labels["val"].append("1.5")
    TEXT[layout](tmp_path, labels)
    assert "found label 1.5, expected whole numbers" in error_of(tmp_path, "train")


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


def test_a_mixture_of_numbers_and_names_is_refused_rather_than_sorted_as_text(tmp_path):
    write_csv(tmp_path, {"train": [*range(12)], "val": [2, "x"]})
    assert "found label 'x', which no training image has" in error_of(tmp_path, "train")
    write_parquet(tmp_path, {"train": [*range(12)]})
    write_parquet(tmp_path, {"val": ["2"]})
    (tmp_path / "train.csv").unlink()
    (tmp_path / "val.csv").unlink()
    assert "val.parquet: found images in 'image' and named labels" in error_of(tmp_path, "train")


@pytest.mark.parametrize("layout", TEXT)
def test_numbers_among_names_are_noted(tmp_path, layout):
    """One slip of the pen makes names of all numbers, which are sorted otherwise."""
    TEXT[layout](tmp_path, {"train": [*range(11), "1O"], "val": [2]})
    source = opened(tmp_path, "train")
    assert source.classes[:4] == ["0", "1", "10", "1O"]
    assert any(
        "11 different labels are numbers, but others are not, such as '1O' at " in n for n in source.notes
    )


@pytest.mark.parametrize("write", [write_csv, write_lists])
def test_an_image_that_is_listed_in_two_classes_is_noted(tmp_path, write):
    write(tmp_path, {"train": ["a", "b", "a"], "val": ["a", "b"]})
    path = next(tmp_path.glob("train*"))
    path.write_text(path.read_text().replace("train/1", "train/0").replace("train/2", "train/0"))
    note = f"data set {tmp_path}: 2 images are listed again, 1 with different labels, the first: train/0.jpg"
    assert opened(tmp_path, "train").notes == [note]


def test_names_that_pandas_takes_for_missing_are_names(tmp_path):
    write_csv(tmp_path, {"train": ["NA", "None", "nan", "007"], "val": ["None"]})
    assert opened(tmp_path, "val").classes == ["007", "NA", "None", "nan"]


def test_names_that_only_case_or_normal_form_tells_apart_are_noted(tmp_path):
    write_csv(tmp_path, {"train": ["caf\u00e9", "cafe\u0301", "tea"], "val": ["tea"]})
    assert any(
        "differ by case, spaces, hyphens or Unicode's normal form alone" in n
        for n in opened(tmp_path, "val").notes
    )


# classes.txt, and names that it can hold


@pytest.mark.parametrize(
    ("text", "labels", "found"),
    [
        ("1,cat\n0,dog\n", [0, 1], "found numbers beside names (1,cat, 0,dog)"),
        ("0 cat\n1 dog\n", [0, 1], "found numbers beside names (0 cat, 1 dog)"),
        ("1 001.cat\n2 002.dog\n", [1, 2], "found numbers beside names"),
        ('{\n"0": "cat",\n"1": "dog"\n}\n', [0, 1], "found JSON"),
        ('["cat", "dog"]', [0, 1], "found JSON"),
        ("", [0, 1], "found 0 different names in 0 lines, expected one for each of the classes"),
        ("\n \n", ["a", "b"], "found 0 different names"),
        ("cat\ndog\n", [1, 2], "found label 2, and none is 0, expected 0 to 1 for the 2 names in"),
        (
            "0\n1\n10\n2\n",
            [0, 3],
            "found numbers for names, in another order, and not just one that is label 3",
        ),
        ("cat\ncat \n", ["cat", "cat"], "found the class name 'cat' twice"),
    ],
)
def test_a_classes_txt_that_is_no_list_of_the_labels_classes_is_refused(tmp_path, text, labels, found):
    write_csv(tmp_path, {"train": labels, "val": labels[:1]})
    (tmp_path / "classes.txt").write_text(text)
    assert found in error_of(tmp_path, "train")


@pytest.mark.parametrize(
    ("names", "labels", "expected"),
    [
        (["0", "1", "10", "2"], [2, 10, 0], [3, 2, 0]),
        (["1", "2", "3"], [1, 3], [0, 2]),
        (["1990", "2000"], [0, 1], [0, 1]),
        (["0", "1", "2"], [2, 1], [2, 1]),
        (["cat ", " dog"], ["dog", "cat"], [1, 0]),
        (["cat ", "cat"], ["cat", "cat "], [1, 0]),
        (["7 up", "9 up"], [1, 0], [1, 0]),
        (["0 cat", "1 dog"], ["1 dog", "0 cat"], [1, 0]),
    ],
)
def test_labels_find_their_lines_of_classes_txt(tmp_path, names, labels, expected):
    write_csv(tmp_path, {"train": labels, "val": labels[:1]})
    (tmp_path / "classes.txt").write_text(classes_text(names))
    source = opened(tmp_path, "train")
    assert source.labels.tolist() == expected
    by_name = any("are numbers, and labels are such names" in note for note in source.notes)
    assert by_name == (isinstance(labels[0], int) and labels != expected)


@pytest.mark.parametrize(
    "names",
    [["crane", "crane"], ["", "a"], [" ", "a"], ["a\nb", "c"], ["a\r", "c"], ["\ufeffa", "b"], ["\0", "b"]],
)
@pytest.mark.parametrize("split", COUNTS)
def test_names_that_classes_txt_cannot_hold_are_refused_before_they_are_written(tmp_path, names, split):
    write_parquet(tmp_path, {"train": [0, 1], "val": [1]}, names={"train": names, "val": names})
    assert "found the class name " in error_of(tmp_path, split)
    write_parquet(tmp_path, {"train": [0, 1], "val": [1]}, names={"train": ["b", "crane"], "val": names})
    assert "val.parquet, row 0: found the class name " in error_of(tmp_path, split)


@pytest.mark.parametrize("names", [["cat ", "cat"], ["#a", "b"], ["a\u2028b", "a\x0bb"], ["a\tb", "\u00e9"]])
def test_names_are_the_same_in_the_classes_txt_of_a_run(tmp_path, names):
    check_class_names(names, "x")
    (tmp_path / "classes.txt").write_text(classes_text(names), encoding="utf-8")
    assert named_classes(tmp_path) == names


def test_a_label_that_is_missing_among_floats_is_none(tmp_path):
    write_csv(tmp_path, {"train": ["0.0", "nan", "1.0"], "val": ["0.0"]})
    assert "train.csv, row 2: found no label" in error_of(tmp_path, "train")


def test_long_labels_are_not_repeated_whole(tmp_path):
    for label in ("9" * 5000, "x" * 5000):
        write_csv(tmp_path, {"train": [0, 1], "val": [label]})
        text = error_of(tmp_path, "train")
        assert len(text) < 600 and label[:70] in text


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


# Folders that tell the class


@pytest.mark.parametrize("write", [write_csv, write_lists])
def test_numbers_that_stand_for_other_folders_in_validation_are_refused(tmp_path, write):
    make_folders(tmp_path, lists=True)
    lines = (tmp_path / "val_list.txt").read_text()
    for a, b in ((" 0", " x"), (" 1", " 0"), (" x", " 1")):
        lines = lines.replace(a, b)
    (tmp_path / "val_list.txt").write_text(lines)
    if write is write_csv:
        for split in COUNTS:
            listed = (tmp_path / f"{split}_list.txt").read_text()
            (tmp_path / f"{split}.csv").write_text("path,label\n" + listed.replace(" ", ","))
            (tmp_path / f"{split}_list.txt").unlink()
    assert f"for all training images in {CLASSES[0]}/" in error_of(tmp_path, "train") or (
        f"for all training images in {CLASSES[1]}/" in error_of(tmp_path, "train")
    )


def test_splits_in_two_layouts_are_refused(tmp_path):
    make_folders(tmp_path)
    make_tar(tmp_path)
    (tmp_path / "val-000000.tar").unlink()
    (tmp_path / "val-000001.tar").unlink()
    for split in COUNTS:
        assert "expected one layout for both" in error_of(tmp_path, split)
    assert open_source(tmp_path, "val", "folders").classes == CLASSES
    with pytest.raises(NoSuchSplit):
        open_source(tmp_path, "val", "tar")


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


# The test split


def test_the_test_split_is_validation_only_where_there_is_no_other(tmp_path):
    write_one_table(tmp_path, {"train": ["a", "b"], "test": ["a", "a", "b"], " VAL ": ["b"]})
    source = opened(tmp_path, "val")
    assert [source.name(i) for i in range(len(source.labels))] == [f"{tmp_path}/VAL /0.jpg"]
    assert (
        f"data set {tmp_path / 'all.csv'}: the test split (3 rows) is not used, as there is val"
        in source.notes
    )
    write_one_table(tmp_path, {"train": ["a", "b"], "test": ["a", "a", "b"], "spare": ["a"], "": ["b"]})
    source = opened(tmp_path, "val")
    assert len(source.labels) == 3
    assert any(
        "validation is on the test split (3 rows), as there is no val" in note for note in source.notes
    )
    assert any("left out 2 rows whose split is neither train" in note for note in source.notes)


@pytest.mark.parametrize("layout", ["csv", "tar", "parquet"])
def test_files_of_the_test_split_are_validation_only_where_there_is_no_other(tmp_path, layout):
    NAMES[layout](tmp_path, {"train": ["a", "b"], "test": ["a", "a", "b"]})
    source = opened(tmp_path, "val")
    assert len(source.labels) == 3
    assert any("validation is on the test split (test" in note for note in source.notes)
    assert source.notes == opened(tmp_path, "train").notes
    NAMES[layout](tmp_path, {"validation": ["b", "a"]})
    source = opened(tmp_path, "val")
    assert source.labels.tolist() == [1, 0]
    assert any("the test split" in note and "is not used" in note for note in source.notes)


def test_a_run_is_told_of_all_notes_of_its_data_set(tmp_path):
    write_csv(tmp_path, {"train": [1, 2], "val": [1]})
    assert open_dataset(tmp_path, "train").notes == opened(tmp_path, "train").notes != []


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
