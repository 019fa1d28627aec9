"""An iterator that takes the next item while the one before is in use."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

_END = object()


def ahead(items: Iterator[T]) -> Iterator[T]:
    """Gives the same items; a second thread takes each while the one before is in use.

    The caller must use up or close the iterator. An error is raised where its item would have been given.
    """
    with ThreadPoolExecutor(1, "sysds-resnet-ahead") as thread:
        following = thread.submit(next, items, _END)
        while (item := following.result()) is not _END:
            following = thread.submit(next, items, _END)
            yield item
