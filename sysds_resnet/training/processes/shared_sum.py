"""Sums between the processes of one machine, which read each other's memory instead of sending messages."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np

from sysds_resnet.engine.mapped_list import MappedList
from sysds_resnet.training.processes.group import MESSAGE, Group

BOOT = Path("/proc/sys/kernel/random/boot_id")  # tells this machine from others, since its last start


def summing(group: Group, memory: MappedList) -> Callable[[], None]:
    """Gives a function by which all processes of a group sum the numbers in their memory, as `Group.sum`.

    If all can map the memory of all others, each of them sums a part of the numbers and copies the other
    parts from those who have summed them; the processes then send each other only that they are ready.
    Otherwise, as on several machines, the collective sums. Both ways give the same bits.

    Args:
        group: The group, of which all processes call this function.
        memory: The memory of this process, with as many numbers as that of the others.
    """
    told = [json.loads(text) for text in group.gather(json.dumps(_described(memory)))]
    mapped = [_map(one, memory.values) for one in told]
    failures = np.array([any(values is None for values in mapped)], np.int64)
    group.sum(failures)
    if failures[0]:
        return partial(group.sum, memory.values)
    return partial(_sum, group, memory.values, mapped)


def _described(memory: MappedList) -> list[object]:
    """Gives what other processes find the memory of this one by, and know it again."""
    number = memory.file.fileno()
    status = os.fstat(number)
    return [BOOT.read_text().strip(), os.getpid(), number, status.st_dev, status.st_ino]


def _map(told: Sequence[object], like: np.ndarray) -> np.ndarray | None:
    """Maps the memory that another process has described; None if this process cannot see it."""
    boot, process, number, *identity = told
    if boot != BOOT.read_text().strip():
        return None
    try:
        with open(f"/proc/{process}/fd/{number}", "rb") as file:
            status = os.fstat(file.fileno())
            if [status.st_dev, status.st_ino] != identity:  # that of another process in a container
                return None
            return np.memmap(file, like.dtype, mode="r", shape=like.shape)
    except OSError:
        return None


def _sum(group: Group, own: np.ndarray, mapped: Sequence[np.ndarray]) -> None:
    """Replaces numbers by their sums over all processes.

    The numbers are divided and added as the collective's ring does it: in each part of so many messages, the
    sum of segment r begins with the numbers of process r, to which those of the next ones are added in turn.
    A rest of fewer numbers than processes is left to the collective, which adds so few in another order.
    """
    others = [mapped[(group.rank + i) % group.size] for i in range(1, group.size)]
    part = group.size * MESSAGE // own.itemsize
    last = len(own) % part
    whole = len(own) - last if last < group.size else len(own)
    parts = _parts(whole, part, group.size)
    _meet(group)  # all have written their numbers
    for segments in parts:
        segment = segments[group.rank]
        for values in others:
            own[segment] += values[segment]
    _meet(group)  # all have summed their segments
    for segments in parts:
        for rank, segment in enumerate(segments):
            if rank != group.rank:
                own[segment] = mapped[rank][segment]
    group.sum(own[whole:])
    _meet(group)  # all have copied, and may write again


def _parts(n: int, length: int, size: int) -> list[list[slice]]:
    """Divides n numbers into parts of a length, and each part into a segment for each process."""
    parts = []
    for start in range(0, n, length):
        end = min(start + length, n)
        each = (end - start) // size
        bounds = [start + i * each for i in range(size)] + [end]
        parts.append([slice(*pair) for pair in pairwise(bounds)])
    return parts


def _meet(group: Group) -> None:
    """Waits until all processes of the group have come to this point."""
    group.sum(np.zeros(1))
