"""Sums between processes that read each other's memory, against those of the collective's messages."""

import tempfile
from types import SimpleNamespace

import numpy as np
import pytest
from groups import in_group

from sysds_resnet.training.processes import shared_sum
from sysds_resnet.training.processes.group import MESSAGE
from sysds_resnet.training.processes.shared_sum import summing


def memory_of(values):
    """A file without a name that has a copy of these values."""
    file = tempfile.TemporaryFile()  # noqa: SIM115  as long as the memory
    values.tofile(file)
    file.flush()
    return SimpleNamespace(file=file, values=np.memmap(file, values.dtype, mode="r+", shape=values.shape))


def summed(values, times=1, sums_by_messages=None):
    """What each of the processes has in its memory after so many sums, one after the other."""

    def work(group):
        memory, way = memory_of(values[group.rank]), []
        group.sum = lambda array, send=group.sum: (way.append(array is memory.values), send(array))
        total = summing(group, memory)
        for _ in range(times):
            total()
        if sums_by_messages is not None:
            assert any(way) == sums_by_messages
        return memory.values.copy()

    return in_group(len(values), work)


def numbers(size, n, kind="f4"):
    """Numbers of such different sizes that another order of adding them gives other bits."""
    rng = np.random.default_rng(n)
    return (rng.standard_normal((size, n)) * 10.0 ** rng.integers(-4, 4, (size, n))).astype(kind)


@pytest.mark.parametrize("size", [2, 3, 5])
@pytest.mark.parametrize("n", [1, 2, 7, 1000, 3 * MESSAGE // 4 + 1, 5 * MESSAGE // 4 + 6])
def test_the_bits_are_those_of_messages(size, n):
    values = numbers(size, n)

    def by_messages(group):
        own = values[group.rank].copy()
        group.sum(own)
        return own

    expected = in_group(size, by_messages)
    for found in summed(values, sums_by_messages=False):
        np.testing.assert_array_equal(found, expected[0])


def test_the_order_matters_for_these_numbers():
    values = numbers(3, 1000)
    assert ((values[0] + values[1]) + values[2] != values[0] + (values[1] + values[2])).any()


def test_sums_of_doubles_can_follow_each_other():
    values = np.arange(15.0).reshape(3, 5)
    for found in summed(values, times=3):
        np.testing.assert_array_equal(found, 9 * values.sum(0))


@pytest.mark.parametrize("change", [("boot_id", "another machine"), ("st_ino", "another file")])
def test_without_the_memory_of_one_process_all_send_messages(monkeypatch, change):
    described = shared_sum._described
    place = {"boot_id": 0, "st_ino": -1}[change[0]]

    def changed(memory):
        found = described(memory)
        if memory.values[0] == 0:  # the first process
            found[place] = change[1]
        return found

    monkeypatch.setattr(shared_sum, "_described", changed)
    values = np.arange(6.0).reshape(3, 2)
    for found in summed(values, sums_by_messages=True):
        np.testing.assert_array_equal(found, values.sum(0))


def test_a_process_that_is_gone_is_no_error_before_the_sum(monkeypatch):
    """Nor is a folder of processes that hides those of others."""
    described = shared_sum._described
    monkeypatch.setattr(
        shared_sum, "_described", lambda memory: [described(memory)[0], 2**30, *described(memory)[2:]]
    )
    for found in summed(np.ones((2, 4)), sums_by_messages=True):
        np.testing.assert_array_equal(found, np.full(4, 2.0))
