"""Images that take too long to read: they count as unreadable, and nothing waits for them."""

import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from command_line import finish, start_python

from sysds_resnet.batches import reading
from sysds_resnet.batches.order import sequential_order
from sysds_resnet.batches.reading import read
from sysds_resnet.batches.stream import BatchStream


class Slow:
    """Image i is filled with i; those of some numbers take until they are let go."""

    decodes, channels, image_size = True, 3, (4, 4)
    labels = np.zeros(12, np.int64)
    classes = ("a",)

    def __init__(self, *slow, failure=None):
        self.slow, self.failure = slow, failure
        self.let_go = threading.Event()
        self.threads = set()

    def __len__(self):
        return 12

    def name(self, index):
        return f"image-{index}"

    def image(self, index, epoch):
        self.threads.add(threading.get_ident())
        if index in self.slow:
            self.let_go.wait(60)
        if index == self.failure:
            raise RuntimeError("no fault of an image")
        return np.full((4, 4, 3), index, np.uint8)


@pytest.fixture
def patience(monkeypatch):
    """Gives up after a fifth of a second."""
    monkeypatch.setattr(reading, "SECONDS_PER_IMAGE", 0.2)


@pytest.mark.parametrize(
    ("slow", "replace", "indices"),
    [
        ((2,), False, [0, 1, 3]),
        ((2,), True, [0, 1, 3, 3]),
        ((0, 1, 3), False, [2]),
        ((3, 4, 5), True, [0, 1, 2, 6]),
        ((0, 1, 2, 3), False, []),
    ],
)
@pytest.mark.usefixtures("patience")
def test_an_image_that_takes_too_long_is_one_that_cannot_be_read(slow, replace, indices):
    data = Slow(*slow)
    samples = read(data, np.arange(4), 0, replace)
    assert samples.indices.tolist() == indices == samples.images[:, 0, 0, 0].tolist()
    assert [index for index, _ in samples.errors] == list(slow)
    for index, reason in samples.errors:
        assert reason.startswith(f"class a, image image-{index}: found that it takes more than 0.2 s to read")
    late = [thread for thread in threading.enumerate() if thread.ident in data.threads]
    data.let_go.set()
    assert read(data, np.arange(4, 8), 0, replace).indices.tolist() == [4, 5, 6, 7]
    for thread in late:
        if thread is not reading._own.thread:
            thread.join()
    assert samples.indices.tolist() == indices  # what comes late after all disturbs nothing
    assert len(samples.errors) == len(slow)


@pytest.mark.usefixtures("patience")
def test_a_stream_goes_on_after_an_image_that_takes_too_long():
    data, bad = Slow(5), []
    with (
        ThreadPoolExecutor(1) as pool,
        BatchStream(
            data,
            sequential_order(12),
            4,
            SimpleNamespace(submit=partial(pool.submit, read)),
            drop_last=False,
            epochs=1,
            on_error=lambda _, index, reason: bad.append(index),
        ) as stream,
    ):
        assert [batch.indices.tolist() for batch in stream] == [[0, 1, 2, 3], [4, 6, 7], [8, 9, 10, 11]]
    data.let_go.set()
    assert bad == [5]


def test_images_are_read_by_one_thread_that_stays_and_none_that_ends_is_waited_for():
    data = Slow()
    for _ in range(3):
        read(data, np.arange(12), 0, False)
    assert len(data.threads) == 1 and threading.get_ident() not in data.threads
    [thread] = (thread for thread in threading.enumerate() if thread.ident in data.threads)
    assert thread.daemon


def test_other_failures_than_of_images_are_raised():
    with pytest.raises(RuntimeError, match="no fault of an image"):
        read(Slow(failure=3), np.arange(12), 0, True)


def test_the_end_of_a_process_does_not_wait_for_an_image_that_takes_too_long():
    program = """
import time
import numpy as np
from sysds_resnet.batches import reading
from sysds_resnet.errors import UserError
reading.SECONDS_PER_IMAGE = 0.2
class Endless:
    decodes, channels, image_size, classes = True, 3, (4, 4), []
    labels = np.zeros(2, np.int64)
    def __len__(self): return 2
    def name(self, index): return str(index)
    def image(self, index, epoch):
        if index == 0:
            time.sleep(600)
        return np.zeros((4, 4, 3), np.uint8)
print(reading.read(Endless(), np.arange(2), 0, False).indices.tolist())
"""
    outcome = finish(start_python("-c", program), timeout=60)
    assert (outcome.code, outcome.out) == (0, "[1]\n"), outcome.err
