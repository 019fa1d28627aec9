"""Threads of the stream of batches: how far they read ahead, and that they end with it."""

import signal
import threading
import time

import numpy as np
import pytest
from command_line import start_python
from numbered_images import numbered, our_threads

from sysds_resnet.batches.order import sequential_order
from sysds_resnet.batches.stream import BatchStream


@pytest.fixture(autouse=True)
def no_threads_are_left():
    yield
    assert our_threads() == []


def test_order_is_asked_once_an_epoch_by_the_consuming_thread():
    calls = []

    def order(epoch):
        calls.append((epoch, threading.get_ident()))
        return np.arange(12)

    with BatchStream(numbered(12), order, 4, drop_last=True, epochs=3) as stream:
        list(stream)
    assert calls == [(epoch, threading.get_ident()) for epoch in range(3)]


def test_batches_are_read_ahead_but_not_without_bound():
    seen = set()

    class Counting:
        def __getattr__(self, name):
            return getattr(numbered(100), name)

        def __len__(self):
            return 100

        def image(self, index, epoch):
            seen.add(index)
            return np.zeros((4, 5, 3), np.uint8)

    with BatchStream(Counting(), sequential_order(100), 10, drop_last=True, prefetch=2) as stream:
        next(stream)
        deadline = time.monotonic() + 10
        while len(seen) < 30 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.1)
        assert seen == set(range(30))


def test_closing_early_leaves_no_threads_and_does_not_wait_for_what_is_queued():
    seen = set()

    class Slow:
        def __getattr__(self, name):
            return getattr(numbered(64), name)

        def __len__(self):
            return 64

        def image(self, index, epoch):
            seen.add(index)
            time.sleep(0.0 if index < 4 else 0.25)
            return np.zeros((4, 5, 3), np.uint8)

    with BatchStream(Slow(), sequential_order(64), 4, drop_last=True, prefetch=10) as stream:
        next(stream)
        assert our_threads()
    assert our_threads() == []
    assert len(seen) < 4 * (1 + 10), "those that were queued were read"
    stream.close()
    assert list(stream) == []


def test_finished_stream_leaves_no_threads_without_close():
    stream = BatchStream(numbered(8), sequential_order(8), 4, drop_last=True, epochs=1)
    assert len(list(stream)) == 2
    assert our_threads() == []


def test_ctrl_c_while_waiting_ends_the_process_at_once():
    program = """
import time, numpy as np
from sysds_resnet.batches.order import sequential_order
from sysds_resnet.batches.stream import BatchStream
from sysds_resnet.images import open_dataset
data = open_dataset("synthetic", "train")
def slow(index, epoch):
    print("reading", flush=True)
    time.sleep(0.5)
    return np.zeros((32, 32, 3), np.uint8)
data.image = slow
for batch in BatchStream(data, sequential_order(256), 64, drop_last=True):
    pass
"""
    process = start_python("-c", program)
    try:
        assert process.stdout.readline().startswith("reading")  # two threads may share a line
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=5)  # all images take 64 seconds
    finally:
        process.kill()
    # not always its last line: Python may be interrupted in a lock's own code, and say so after it
    assert process.returncode != 0 and "KeyboardInterrupt" in errors
