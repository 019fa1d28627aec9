"""The reading of samples one after the other, though some may be damaged, or endlessly slow."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue

import numpy as np

from sysds_resnet.errors import UserError
from sysds_resnet.images.datasets import Dataset

SECONDS_PER_IMAGE = 60.0
"""The seconds that an image may take to read and decode; after these it counts as one that cannot be read."""

LOOKS_PER_IMAGE = 60
"""The number of checks in these seconds, by which they are counted.

So a process that is stopped and goes on has not used up all of them.
"""


@dataclass(frozen=True, eq=False)
class Samples:
    """What a worker read of k samples.

    Attributes:
        images: The images, uint8 of shape (m, H, W, C), m at most k.
        indices: The positions of the images in the data set, int64 of shape (m,).
        errors: The position and reason of each sample that could not be read.
    """

    images: np.ndarray
    indices: np.ndarray
    errors: list[tuple[int, str]]


def read(
    dataset: Dataset,
    indices: np.ndarray,
    epoch: int,
    replace: bool,
    stop: threading.Event | None = None,
    seconds: float | None = None,
) -> Samples:
    """Reads samples one after the other.

    Samples that must be decoded are read in a thread of their own. One that takes too long is left to that
    thread, since nothing ends the call of a library, and the next ones are read in a new thread.

    Args:
        dataset: The data set of the samples.
        indices: The positions of the samples in it, of shape (k,).
        epoch: The epoch in which they are seen.
        replace: Whether the next good sample of the data set takes the place of one that cannot be read;
            otherwise it is left out.
        stop: An event; once it is set, the samples that are left are not read.
        seconds: The seconds that an image may take; None means `SECONDS_PER_IMAGE`.
    """
    reading = _Reading(dataset, indices, epoch, replace, stop)
    if dataset.decodes:
        _watch(reading, SECONDS_PER_IMAGE if seconds is None else seconds)
    else:
        reading.go_on()
    return reading.samples()


class _Reading:
    """Samples that are being read, by one thread after the other."""

    def __init__(
        self, dataset: Dataset, indices: np.ndarray, epoch: int, replace: bool, stop: threading.Event | None
    ) -> None:
        self.done = threading.Event()
        self.looked_at = 0  # samples that are done: read, or given up
        self._dataset, self._epoch, self._stop = dataset, epoch, stop
        self._most = len(dataset) if replace else 1  # samples tried for one place
        self._left = deque(indices.tolist())  # positions to read; the first is being read
        self._tried = 0  # samples tried for the first place
        self._images: list[np.ndarray] = []
        self._indices: list[int] = []
        self._errors: list[tuple[int, str]] = []
        self._failure: BaseException | None = None
        self._reader: object = None  # the thread whose results count
        self._lock = threading.Lock()

    def go_on(self) -> None:
        """Reads what is left, unless another thread takes over meanwhile."""
        self._reader = me = object()
        while self._left and not (self._stop and self._stop.is_set()):
            index = self._left[0]
            outcome: np.ndarray | BaseException
            try:
                outcome = self._dataset.image(index, self._epoch)
            except BaseException as error:
                outcome = error
            with self._lock:
                if self._reader is not me:
                    return
                self._settle(index, outcome)
        self.done.set()

    def give_up(self, looked_at: int, seconds: float) -> bool:
        """Gives up the sample that is being read, unless it was done after all; tells whether it did.

        The sample is left to the thread that reads it, whose result will not count.
        """
        with self._lock:
            if not self._left or self.looked_at != looked_at:
                return False
            self._reader = None
            index, data = self._left[0], self._dataset
            name = f"image {data.name(index)}"
            if data.classes:
                name = f"class {data.classes[data.labels[index]]}, {name}"
            reason = (
                f"{name}: found that it takes more than {seconds:g} s to read and decode, expected less: "
                "repair, replace or remove the file"
            )
            self._settle(index, UserError(reason))
            return True

    def samples(self) -> Samples:
        """Gives what was read, or raises an error that was no fault of a sample."""
        if self._failure is not None:
            raise self._failure
        shape = (0, *self._dataset.image_size, self._dataset.channels)
        images = np.stack(self._images) if self._images else np.empty(shape, np.uint8)
        return Samples(images, np.array(self._indices, np.int64), self._errors)

    def _settle(self, index: int, outcome: np.ndarray | BaseException) -> None:
        self.looked_at += 1
        self._tried += 1
        if isinstance(outcome, UserError):
            self._errors.append((index, str(outcome)))
            if self._tried < self._most:
                self._left[0] = (index + 1) % len(self._dataset)
                return
        elif isinstance(outcome, BaseException):
            self._failure = outcome
            self._left.clear()
            return
        else:
            self._images.append(outcome)
            self._indices.append(index)
        self._left.popleft()
        self._tried = 0


class _Thread(threading.Thread):
    """A thread that makes calls, until it is given None."""

    def __init__(self) -> None:
        super().__init__(name="sysds-resnet-image", daemon=True)  # the end of a process does not wait for it
        self.calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self.start()

    def run(self) -> None:
        while (call := self.calls.get()) is not None:
            call()


_own = threading.local()  # holds the thread that reads for the current one


def _watch(reading: _Reading, seconds: float) -> None:
    """Has samples read by another thread, or by several if an image takes longer than some seconds."""
    while not reading.done.is_set():
        thread = getattr(_own, "thread", None)
        if thread is None or not thread.is_alive():  # not alive after a fork
            thread = _own.thread = _Thread()
        thread.calls.put(reading.go_on)
        looks, looked_at = 0, 0
        while not reading.done.wait(seconds / LOOKS_PER_IMAGE):
            looks = looks + 1 if looked_at == reading.looked_at else 0
            looked_at = reading.looked_at
            if looks >= LOOKS_PER_IMAGE and reading.give_up(looked_at, seconds):
                thread.calls.put(None)
                _own.thread = None
                break
