"""Orders in which all classes come equally often."""

import numpy as np
import pytest

from sysds_resnet.batches.balance import balanced_order
from sysds_resnet.batches.order import REPETITION, BatchOrder


def shuffled(n):
    return lambda epoch: np.random.default_rng(epoch).permutation(n)


@pytest.fixture
def labels():
    """60 samples of class 0, 7 of class 2 and 3 of class 3, in no order."""
    return np.random.default_rng(0).permutation(np.repeat([0, 2, 3], [60, 7, 3]))


def test_classes_come_equally_often(labels):
    order = balanced_order(shuffled(70), labels, seed=5)
    more = set()
    for epoch in range(20):
        samples = order(epoch) % 70
        counts = np.bincount(labels[samples], minlength=4)
        assert sorted(counts.tolist()) == [0, 23, 23, 24]
        more.add(counts.argmax())
    assert more == {0, 2, 3}


def test_no_sample_comes_again_before_all_others_of_its_class(labels):
    numbers = balanced_order(shuffled(70), labels, seed=5)(3)
    appearances, samples = np.divmod(numbers, 70)
    for label in (0, 2, 3):
        own = samples[labels[samples] == label]
        times = np.bincount(own, minlength=70)[labels == label]
        assert times.max() - times.min() <= 1
        for sample in np.unique(own):  # its appearances are numbered from 0
            found = np.sort(appearances[samples == sample])
            assert found.tolist() == list(range(len(found)))


def test_the_order_is_the_same_whenever_it_is_asked_for_and_different_in_each_epoch(labels):
    first, second = (balanced_order(shuffled(70), labels, seed) for seed in (5, 5))
    assert np.array_equal(first(4), second(4))
    assert not np.array_equal(np.sort(first(4)), np.sort(first(5)))
    assert not np.array_equal(first(4), balanced_order(shuffled(70), labels, 6)(4))


def test_even_classes_come_as_without_balance():
    labels = np.tile([0, 1], 20)
    assert np.array_equal(np.sort(balanced_order(shuffled(40), labels, 0)(2)), np.arange(40))


@pytest.mark.parametrize("repeats", [1, 2])
def test_each_appearance_is_augmented_anew(labels, repeats):
    """By an epoch of its own; the batches have all samples of the order."""
    order = balanced_order(shuffled(70), labels, seed=5)
    batches = BatchOrder(70, order, 10, drop_last=True, repeats=repeats, epochs=1)
    seen = [(int(i), part.epoch) for batch in batches for part in batch.parts for i in part.indices]
    assert len(seen) == 70 == len(set(seen))
    assert {epoch % REPETITION for _, epoch in seen} == {0}
    if repeats == 1:
        assert sorted(i for i, _ in seen) == sorted((order(0) % 70).tolist())
