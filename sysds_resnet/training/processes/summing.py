"""The sum of gradients over the processes of a group: in memory that all see, or else by messages."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise

from sysds_resnet.engine.mapped_list import MappedList
from sysds_resnet.training.processes.group import MESSAGE, JoinedGroup
from sysds_resnet.training.processes.memory_sum import map_memories, sum_in_memory
from sysds_resnet.training.processes.rounded_sum import RoundedSum

BF16_BYTES = 2


def summing(group: JoinedGroup, memory: MappedList, more: int, bf16: bool) -> Callable[[], None]:
    """Gives a function by which all processes of a group sum the numbers in their memory, as `Group.sum`.

    If all can map the memory of all others, each of them sums a part of the numbers and copies the other
    parts from those who have summed them; the processes then send each other only that they are ready.
    Otherwise, as on several machines, they send the numbers. Both ways give the same bits.

    Args:
        group: The group, of which all processes call this function.
        memory: The memory of this process, with as many numbers as that of the others: gradients, and others.
        more: How many numbers at the end are no gradients.
        bf16: Whether gradients, which are float32 then, travel in bf16: those of each process are rounded to
            it, summed in float32, and the sums are rounded again. The other numbers are summed as they are.

    Raises:
        UserError: If they must be sent in bf16, and the package that sends them is not installed.
    """
    values, mapped = memory.values, map_memories(group, memory)
    if mapped is None and not bf16:
        return partial(group.sum, values)
    length = group.size * MESSAGE // (BF16_BYTES if bf16 else values.itemsize)
    n = len(values) - more if bf16 else _in_order_of_ranks(len(values), length, group.size)
    parts = divided(n, length, group.size)
    if mapped is None:
        in_parts = partial(RoundedSum(group).sum, values, parts)
    else:
        in_parts = partial(sum_in_memory, group, values, mapped, parts, bf16)

    def total() -> None:
        in_parts()
        group.sum(values[n:])

    return total


def divided(n: int, length: int, size: int) -> list[list[slice]]:
    """Divides n numbers as the collective does: into parts, and each part into a segment for each process.

    Args:
        n: The number of numbers.
        length: The length of a part; the last one may be shorter.
        size: The number of segments of each part; the last one has what is left over.
    """
    parts = []
    for start in range(0, n, length):
        end = min(start + length, n)
        each = (end - start) // size
        bounds = [start + i * each for i in range(size)] + [end]
        parts.append([slice(*pair) for pair in pairwise(bounds)])
    return parts


def _in_order_of_ranks(n: int, length: int, size: int) -> int:
    """Gives how many of n numbers the collective adds in the order of its ring.

    It adds a last part of fewer numbers than processes in another order.
    """
    last = n % length
    return n - last if last < size else n
