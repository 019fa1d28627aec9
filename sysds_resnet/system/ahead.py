"""What takes the next item while the one before is in use."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

_END = object()


def ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items, each taken by a thread of its own during the use of the one before.

    To be closed, or used up; errors come with the item that they are of.
    """
    with ThreadPoolExecutor(1, "sysds-resnet-ahead") as thread:
        following = thread.submit(next, items, _END)
        while (item := following.result()) is not _END:
            following = thread.submit(next, items, _END)
            yield item
