"""Comparing the class names of networks and data sets."""

import unicodedata

import pytest

from sysds_resnet.classes.comparison import Difference, check_class_names, compare_class_names
from sysds_resnet.errors import UserError


def refused(found, expected):
    with pytest.raises(UserError) as caught:
        check_class_names(found, expected, "data", "w.pth", "mend it")
    text = str(caught.value)
    assert text.startswith("data: ") and text.endswith("; mend it") and "\n" not in text
    return text


def test_equal_names_are_equal():
    assert check_class_names(["a", "b"], ["a", "b"], "data", "w", "") is None
    assert check_class_names(["Cat", "cat"], ["Cat", "cat"], "data", "w", "") is None


def test_a_shared_name_at_another_index_is_refused():
    text = refused(["green", "red", "yellow"], ["blue", "green", "red"])
    assert "found 'green' for class 0, expected 'blue' as in w.pth, where 'green' is class 1" in text


def test_a_permutation_is_refused_even_where_other_names_differ_too():
    assert "'b' for class 2, expected 'c'" in refused(["x", "y", "b"], ["a", "b", "c"])


CAFE = "café"


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ("Cat", "cat"),
        ("STRASSE", "straße"),
        ("polar bear", "polarbear"),
        ("cat ", "cat"),
        ("ice\u00a0bear", "ice bear"),
        ("\ufeffcat", "cat"),
        (unicodedata.normalize("NFD", CAFE), unicodedata.normalize("NFC", CAFE)),
    ],
)
@pytest.mark.parametrize("elsewhere", [False, True])
def test_names_that_only_their_spelling_tells_apart_are_refused(found, expected, elsewhere):
    ours, theirs = ["one", found, "three"], ["one", expected, "three"]
    if elsewhere:
        theirs = ["uno", "due", expected]
    text = refused(ours, theirs)
    looks_alike = unicodedata.normalize("NFC", found) == unicodedata.normalize("NFC", expected)
    show = ascii if looks_alike else repr
    assert (
        f"found {show(found)} for class 1, expected {show(expected)}, which is class {2 if elsewhere else 1}"
        in text
    )


def test_both_spellings_in_one_list_are_two_classes():
    assert compare_class_names(["cat", "Cat"], ["Cat", "cat"]).kind == "order"
    assert compare_class_names(["CAT", "cat"], ["dog", "cat"]) == Difference("name", 0, "CAT", "dog", 0)


SEPARATED = [
    ("hot_dog", "hot dog"),
    ("hot-dog", "hot_dog"),
    ("hot\u2010dog", "Hotdog"),
    ("t-shirt", "t shirt"),
]


@pytest.mark.parametrize(("found", "expected"), SEPARATED)
def test_names_that_only_separators_tell_apart_are_one_class(found, expected):
    assert compare_class_names(["a", found], ["a", expected]) == Difference("name", 1, found, expected, 1)
    assert compare_class_names([found, "b"], ["x", expected]) == Difference("order", 0, found, "x", 1)
    assert f"where {found!r} is class 1" in refused([found, "ice_cream"], ["ice cream", expected])
    assert compare_class_names([found, expected], [expected, found]).kind == "order"


def test_numbers_keep_their_signs_and_both_spellings_are_two_classes():
    assert compare_class_names(["-1", "0"], ["0", "1"]).found == "0"
    assert compare_class_names(["-1", "x"], ["y", "1"]).kind == "name"
    assert compare_class_names(["t shirt", "x"], ["t-shirt", "t_shirt"]).kind == "name"


def test_other_names_are_allowed_and_the_first_pair_is_noted():
    note = check_class_names(["n01", "n02"], ["tench", "shark"], "data", "w.pth", "")
    assert note == (
        "data: class 0 is 'n01' there and 'tench' in w.pth; classes are taken to be the same by their numbers"
    )
    assert "class 1 is 'n02'" in check_class_names(["tench", "n02"], ["tench", "shark"], "data", "w", "")
