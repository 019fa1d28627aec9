"""Taking the next item while the one before is in use."""

import threading
from contextlib import closing

import pytest

from sysds_resnet.system.ahead import ahead


def test_items_come_in_their_order_each_taken_during_the_use_of_the_one_before():
    taken = [threading.Event() for _ in range(4)]

    def items():
        for i, event in enumerate(taken):
            event.set()
            yield i

    found = []
    for item in ahead(items()):
        assert all(event.wait(10) for event in taken[: item + 2])
        found.append(item)
    assert found == [0, 1, 2, 3]


def test_an_error_comes_with_its_item():
    def items():
        yield 1
        raise ValueError("second")

    found = ahead(items())
    assert next(found) == 1
    with pytest.raises(ValueError, match="second"):
        next(found)


def test_what_is_closed_takes_no_more_and_leaves_no_thread():
    asked = []

    def items():
        for i in range(9):
            asked.append(i)
            yield i

    with closing(ahead(items())) as found:
        next(found)
    assert asked == [0, 1]
    assert not any(thread.name.startswith("sysds-resnet-ahead") for thread in threading.enumerate())
