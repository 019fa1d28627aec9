"""The sums of gradients over the processes of a group: in memory that all see, or else by messages."""

from __future__ import annotations

from itertools import pairwise

from sysds_resnet.engine.mapped_list import MappedList
from sysds_resnet.training.processes.group import MESSAGE, JoinedGroup
from sysds_resnet.training.processes.memory_sum import map_memories, sum_in_memory
from sysds_resnet.training.processes.rounded_sum import RoundedSum

BF16_BYTES = 2


class Summing:
    """Sums over all processes of a group of the numbers that each has in its memory, as `Group.sum`.

    If all can map the memory of all others, each of them sums a part of the numbers and copies the other
    parts from those who have summed them; the processes then send each other only that they are ready.
    Otherwise, as on several machines, they send the numbers. Both ways give the same bits.

    Args:
        group: The group, of which all processes do this at the same time.
        memory: The memory of this process, with as many numbers as that of the others: some, and gradients.
        more: How many numbers at the beginning are no gradients.
        bf16: Whether gradients, which are float32 then, travel in bf16: those of each process are rounded to
            it, summed in float32, and the sums are rounded again. The other numbers are summed as they are.

    Raises:
        UserError: If they must be sent in bf16, and the package that sends them is not installed.
    """

    def __init__(self, group: JoinedGroup, memory: MappedList, more: int, bf16: bool) -> None:
        self._group, self._values, self._more, self._bf16 = group, memory.values, more, bf16
        self._mapped = map_memories(group, memory)
        self._rounded = RoundedSum(group) if bf16 and self._mapped is None else None

    def sum(self, start: int, stop: int) -> None:
        """Replaces the numbers from one place to another by their sums, in all processes at the same time.

        Raises:
            PeerLost: If another process is gone; the numbers are then of no use.
        """
        group, values = self._group, self._values
        if self._bf16:
            first = max(start, self._more)
            group.sum(values[start:first])
            parts = divided(first, stop, group.size * MESSAGE // BF16_BYTES, group.size)
            if self._rounded is None:
                sum_in_memory(group, values, self._mapped, parts, rounded=True)
            else:
                self._rounded.sum(values, parts)
        elif self._mapped is None:
            group.sum(values[start:stop])
        else:
            length = group.size * MESSAGE // values.itemsize
            # the collective adds a last part of fewer numbers than processes in another order
            rest = (stop - start) % length
            last = stop - rest if rest < group.size else stop
            sum_in_memory(group, values, self._mapped, divided(start, last, length, group.size))
            group.sum(values[last:stop])


def divided(start: int, stop: int, length: int, size: int) -> list[list[slice]]:
    """Divides numbers as the collective does: into parts, and each part into a segment for each process.

    Args:
        start, stop: The places of the first number, and of the first one after the last.
        length: The length of a part; the last one may be shorter.
        size: The number of segments of each part; the last one has what is left over.
    """
    parts = []
    for first in range(start, stop, length):
        end = min(first + length, stop)
        each = (end - first) // size
        bounds = [first + i * each for i in range(size)] + [end]
        parts.append([slice(*pair) for pair in pairwise(bounds)])
    return parts
