"""Labels mean the same class in both splits, in every layout; what cannot be meant is one line."""

import tracemalloc

import pytest
from small_layouts import CLASSES, COUNTS, make_folders, make_tar
from written_labels import (
    NAMES,
    NUMBERS,
    TEXT,
    error_of,
    opened,
    write_csv,
    write_lists,
    write_one_table,
    write_parquet,
)

from sysds_resnet.errors import NoSuchSplit
from sysds_resnet.images import open_dataset
from sysds_resnet.images.sources.layouts import open_source


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


@pytest.mark.parametrize("layout", TEXT)
def test_whole_floats_are_numbers_and_others_are_refused(tmp_path, layout):
    labels = {"train": ["2.0", "10.0", *map(str, range(10))], "val": ["1"]}
    TEXT[layout](tmp_path, labels)
    assert opened(tmp_path, "train").labels.tolist() == [2, 10, *range(10)]
    labels["val"].append("1.5")
    TEXT[layout](tmp_path, labels)
    assert "found label 1.5, expected whole numbers" in error_of(tmp_path, "train")


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


def test_names_that_only_case_or_normal_form_tells_apart_are_noted(tmp_path):
    write_csv(tmp_path, {"train": ["caf\u00e9", "cafe\u0301", "tea"], "val": ["tea"]})
    assert any(
        "differ by case, spaces, hyphens or Unicode's normal form alone" in n
        for n in opened(tmp_path, "val").notes
    )


def test_long_labels_are_not_repeated_whole(tmp_path):
    for label in ("9" * 5000, "x" * 5000):
        write_csv(tmp_path, {"train": [0, 1], "val": [label]})
        text = error_of(tmp_path, "train")
        assert len(text) < 600 and label[:70] in text


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
