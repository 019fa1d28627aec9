"""Sums between processes that read each other's memory, against those of messages, exact and in bf16."""

import os
import signal
import sys
import tempfile
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from groups import in_group, in_processes

from sysds_resnet.errors import UserError
from sysds_resnet.training.processes import memory_sum
from sysds_resnet.training.processes.group import MESSAGE, PeerLost
from sysds_resnet.training.processes.summing import Summing

MORE = 5  # numbers that are no gradients
LENGTHS = [1, 2, 7, 1000, 3 * MESSAGE // 4 + 1, 5 * MESSAGE // 4 + 6]


def memory_of(values):
    """A file without a name that has a copy of these values."""
    file = tempfile.TemporaryFile()  # noqa: SIM115  as long as the memory
    values.tofile(file)
    file.flush()
    return SimpleNamespace(file=file, values=np.memmap(file, values.dtype, mode="r+", shape=values.shape))


def sum_memory(values, times, sums_by_messages, bf16, group):
    """What this process has in its memory after so many sums of these values of all, one after the other."""
    memory = memory_of(values[group.rank])
    sums = Summing(group, memory, MORE if bf16 else 0, bf16)
    for _ in range(times):
        sums.sum(0, len(memory.values))
    if sums_by_messages is not None:
        assert (sums._mapped is None) == sums_by_messages
    return memory.values.copy()


def summed(values, times=1, sums_by_messages=None, bf16=False):
    """What each of the processes has in its memory."""
    return in_group(len(values), partial(sum_memory, values, times, sums_by_messages, bf16))


def numbers(size, n, kind="f4"):
    """Numbers of such different sizes that another order of adding them gives other bits."""
    rng = np.random.default_rng(n)
    return (rng.standard_normal((size, n)) * 10.0 ** rng.integers(-4, 4, (size, n))).astype(kind)


@pytest.mark.parametrize("size", [2, 3, 5])
@pytest.mark.parametrize("n", LENGTHS)
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
    described = memory_sum._described
    place = {"boot_id": 0, "st_ino": -1}[change[0]]

    def changed(memory):
        found = described(memory)
        if memory.values[0] == 0:  # the first process
            found[place] = change[1]
        return found

    monkeypatch.setattr(memory_sum, "_described", changed)
    values = np.arange(6.0).reshape(3, 2)
    for found in summed(values, sums_by_messages=True):
        np.testing.assert_array_equal(found, values.sum(0))


def test_a_process_that_is_gone_is_no_error_before_the_sum(monkeypatch):
    """Nor is a folder of processes that hides those of others."""
    described = memory_sum._described
    monkeypatch.setattr(
        memory_sum, "_described", lambda memory: [described(memory)[0], 2**30, *described(memory)[2:]]
    )
    for found in summed(np.ones((2, 4)), sums_by_messages=True):
        np.testing.assert_array_equal(found, np.full(4, 2.0))


def rounded_sums(values):
    """The sums in bf16 by PyTorch, in the order of a ring that has a segment for each process."""
    size, part = len(values), len(values) * MESSAGE // 2
    rounded, found = torch.from_numpy(values).bfloat16(), []
    for start in range(0, values.shape[1], part):
        numbers = rounded[:, start : start + part]
        each = numbers.shape[1] // size
        for first in range(size):
            segment = numbers[:, first * each : (first + 1) * each if first < size - 1 else None]
            total = segment[first].float()
            for i in range(1, size):
                total = total + segment[(first + i) % size].float()
            found.append(total.bfloat16().float())
    return torch.cat(found).numpy()


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("n", LENGTHS)
def test_gradients_in_bf16_are_those_of_torch_and_other_numbers_are_not_rounded(size, n):
    values = np.concatenate([np.full((size, MORE), 1 + 2.0**-20, "f4"), numbers(size, n)], 1)
    for found in summed(values, bf16=True):
        np.testing.assert_array_equal(found[:MORE], np.full(MORE, size * (1 + 2.0**-20), "f4"))
        np.testing.assert_array_equal(found[MORE:], rounded_sums(values[:, MORE:]))


def strangers(monkeypatch):
    """Lets each process take all for those of other machines."""
    monkeypatch.setattr(memory_sum, "BOOT", SimpleNamespace(read_text=lambda: str(os.urandom(8))))


def bf16_by_messages(values, group):
    """What `sum_memory` gives where no process sees the memory of another."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        strangers(monkeypatch)
        return sum_memory(values, 2, True, True, group)


@pytest.mark.parametrize(
    ("size", "n"), [(2, 5 * MESSAGE // 4 + 6), (3, 7 * MESSAGE // 4 + 1), (3, 2), (2, MESSAGE)]
)
def test_messages_in_bf16_have_the_bits_of_memory(size, n):
    values = numbers(size, n + MORE)
    expected = summed(values, times=2, bf16=True)[0]
    for found in in_processes(size, partial(bf16_by_messages, values)):
        np.testing.assert_array_equal(found, expected)


def lose_the_last(values, group):
    """The error of the process that is left when the last one dies between two sums in bf16."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        strangers(monkeypatch)
        sums = Summing(group, memory_of(values[group.rank]), MORE, True)
    sums.sum(0, values.shape[1])
    if group.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    with pytest.raises(PeerLost) as lost:
        sums.sum(0, values.shape[1])
    return str(lost.value)


def test_the_loss_of_a_process_is_told_in_bf16():
    message, none = in_processes(2, partial(lose_the_last, numbers(2, 1000)))
    assert message.startswith("process 0: found another process of the run gone in the middle of a sum (")
    assert "expected all 2 to take part" in message and "\n" not in message
    assert none is None


def test_bf16_between_machines_needs_torch(monkeypatch):
    strangers(monkeypatch)
    monkeypatch.setitem(sys.modules, "torch", None)

    def work(group):
        with pytest.raises(UserError, match=r"--wire bf16: found .*torch.*expected the packages"):
            Summing(group, memory_of(np.ones(8, "f4")), MORE, True)

    in_group(2, work)
