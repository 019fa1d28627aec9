"""The lines of classes.txt: which labels they name, which are refused, and names that no line can hold."""

import pytest
from small_layouts import COUNTS
from written_labels import error_of, opened, write_csv, write_parquet

from sysds_resnet.classes.file import check_class_names, classes_text, named_classes


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
