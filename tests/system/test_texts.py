"""Texts in two arrays are the same texts as in a list."""

import copy
import pickle

import pytest

from sysds_resnet.system.texts import Texts

NAMES = ["a/b.jpg", "", "größe.png", "日本/猫.jpg", "e" * 300, "🙂"]


def test_texts_are_those_of_a_list():
    texts = Texts(NAMES)
    assert list(texts) == NAMES and len(texts) == len(NAMES)
    assert [texts[i] for i in range(-len(NAMES), len(NAMES))] == NAMES + NAMES
    assert texts[1:4] == NAMES[1:4] and texts[::-1] == NAMES[::-1]
    assert list(copy.deepcopy(texts)) == NAMES
    assert list(Texts([])) == [] and "日本/猫.jpg" in texts


def test_a_place_beyond_the_end_is_refused():
    for place in (len(NAMES), -len(NAMES) - 1):
        with pytest.raises(IndexError):
            Texts(NAMES)[place]


def test_joined_texts_are_those_of_joined_lists():
    parts = [NAMES[:2], [], NAMES[2:5], NAMES]
    assert list(Texts.joined([Texts(part) for part in parts])) == [name for part in parts for name in part]
    assert list(Texts.joined([])) == []


def test_many_names_take_a_fifth_of_a_lists_memory():
    names = [f"train/n{i % 1000:08}/image_{i}.JPEG" for i in range(20_000)]
    in_a_list = sum(name.__sizeof__() + 8 for name in names)
    assert len(pickle.dumps(Texts(names))) < 0.5 * in_a_list


def test_what_is_no_text_is_refused():
    with pytest.raises(UnicodeEncodeError):
        Texts(["a", "b\udcff"])
