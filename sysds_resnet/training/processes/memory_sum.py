"""Sums between the processes of one machine, which read each other's memory instead of sending messages."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sysds_resnet.engine.mapped_list import MappedList
from sysds_resnet.training.processes.group import Group
from sysds_resnet.training.processes.rounding import round_to_bf16

BOOT = Path("/proc/sys/kernel/random/boot_id")  # tells this machine from others, since its last start


def map_memories(group: Group, memory: MappedList) -> list[np.ndarray] | None:
    """Maps the memories of all processes of a group, in the order of their ranks.

    Args:
        group: The group, of which all processes call this function.
        memory: The memory of this process, with as many numbers as that of the others.

    Returns:
        The numbers of each process, float32 or float64 of shape (n,); None in all processes if one of them
        cannot see the memory of another, as on several machines.
    """
    told = [json.loads(text) for text in group.gather(json.dumps(_described(memory)))]
    mapped = [_map(one, memory.values) for one in told]
    failures = np.array([any(values is None for values in mapped)], np.int64)
    group.sum(failures)
    return None if failures[0] else mapped


def sum_in_memory(
    group: Group,
    own: np.ndarray,
    mapped: Sequence[np.ndarray],
    parts: Sequence[Sequence[slice]],
    rounded: bool = False,
) -> None:
    """Replaces numbers of each process by their sums over all processes, as `Group.sum`.

    Each process sums the segments that are its own, and copies the others from those who have summed them.
    The sum of segment r begins with the numbers of process r, to which those of the next ones are added in
    turn, as a ring would do it.

    Args:
        group: The group, of which all processes call this function.
        own: The memory of this process, float32 or float64.
        mapped: The memory of each process, as `map_memories` gives it.
        parts: The numbers to sum: parts of them one after the other, each with a segment for each process.
        rounded: Whether to round the numbers to bf16 before they are summed, and the sums, too.
    """
    following = [(group.rank + i) % group.size for i in range(1, group.size)]
    _meet(group)  # all have written their numbers
    for segments in parts:
        segment = segments[group.rank]
        if rounded:
            total = round_to_bf16(own[segment])
            for rank in following:
                total += round_to_bf16(mapped[rank][segment])
            own[segment] = round_to_bf16(total)
        else:
            for rank in following:
                own[segment] += mapped[rank][segment]
    _meet(group)  # all have summed their segments
    for segments in parts:
        for rank in following:
            own[segments[rank]] = mapped[rank][segments[rank]]
    _meet(group)  # all have copied, and may write again


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


def _meet(group: Group) -> None:
    """Waits until all processes of the group have come to this point."""
    group.sum(np.zeros(1))
