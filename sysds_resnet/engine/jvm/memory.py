"""The size of the JVM's heap, as users write it or as a share of the memory that there is."""

import re

from sysds_resnet.errors import UserError
from sysds_resnet.system.checks import whole
from sysds_resnet.system.machine import address_space, memory_limit

# The rest of the memory is for Python, the images in flight, OpenBLAS's buffers and the JVM's own memory.
HEAP_SHARE = 0.5
MIN_HEAP = 512 * 2**20
BESIDE_HEAP = 5 * 2**29  # bytes of addresses that a JVM sets aside for classes, code, threads and libraries
_UNITS = {"k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


def parse_size(text: str, name: str = "heap", here: bool = True) -> int:
    """Gives the bytes of a size written as Java writes it: "12g", "800m".

    Raises:
        UserError: If the text is no size, or is below 512m, or, with `here`, is above this machine's memory.
    """
    match = re.fullmatch(r"(\d+)([kmgt]?)", text.strip().lower())
    if not match:
        raise UserError(f'{name}: found "{text}", expected a size such as 12g or 800m')
    size = int(match.group(1)) * _UNITS.get(match.group(2), 1)
    if size < MIN_HEAP:
        raise UserError(f"{name}: found {text}, expected at least {MIN_HEAP // 2**20}m; ask for more")
    if here and size > memory_limit():
        most = f"this machine's memory of {memory_limit() // 2**20}m"
        raise UserError(f"{name}: found {text}, expected at most {most}; ask for less")
    return size


def heap_bytes(heap: object, name: str = "heap") -> int:
    """Gives the bytes of a heap that is given as a number of bytes or as a size such as "12g".

    Raises:
        UserError: If it is neither, or is below 512m, or is a size above this machine's memory.
    """
    if isinstance(heap, str):
        return parse_size(heap, name)
    try:
        size = whole(name, heap, 0)
    except UserError:
        size = None
    if size is None or size < MIN_HEAP:
        raise UserError(
            f"{name}: found {heap!r}, expected at least {MIN_HEAP} bytes, or a size such as '12g'; give one"
        )
    return size


def heap_of(text: str | None) -> int:
    """Gives the bytes of heap that a setting asks for, by default `default_heap`; raises as `parse_size`."""
    return parse_size(text) if text else default_heap()


def default_heap() -> int:
    """Gives the bytes of heap for the JVM if the user asks for no size."""
    heap = int(memory_limit() * HEAP_SHARE)
    if (size := address_space()) is not None:
        heap = min(heap, size - BESIDE_HEAP)
    return max(heap, MIN_HEAP)
