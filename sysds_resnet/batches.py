"""Batches of a data set: order, threads that read ahead, and the position to resume from."""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType

import numpy as np

from sysds_resnet.errors import UserError
from sysds_resnet.images.datasets import Dataset

MAX_DEFAULT_WORKERS = 16
SAMPLES_PER_TASK = 8
THREAD_NAME = "sysds-resnet-batches"

Order = Callable[[int], np.ndarray]
"""Gives the order of an epoch: a permutation of 0..n-1, integers of shape (n,), from the epoch alone."""


@dataclass(frozen=True, eq=False)
class Batch:
    """One batch of N samples.

    Attributes:
        images: uint8 of shape (N, H, W, C), not normalised.
        labels: 0-based, int64 of shape (N,).
        indices: positions in the data set, int64 of shape (N,).
        epoch: epoch of the batch, from 0.
        step: place of the batch in its epoch, from 0.
    """

    images: np.ndarray
    labels: np.ndarray
    indices: np.ndarray
    epoch: int
    step: int


def sequential_order(n: int) -> Order:
    """Give the order 0, 1, ..., n-1 in every epoch, for evaluation."""
    return lambda epoch: np.arange(n)


def default_workers() -> int:
    """Give the number of reading threads: one for each core this process may use, at most 16."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MAX_DEFAULT_WORKERS)


class BatchStream(Iterator[Batch]):
    """The batches of a data set, epoch after epoch, read ahead by threads.

    Use it in a `with` statement or call `close`. What a batch holds depends only on the data set, the order
    and the position, never on the number of threads or on speed: a thread writes a sample to the place that
    the order gives it. Threads are enough because Pillow decodes and resizes without Python's global lock.

    `order` is only called by the thread that iterates, since what stands behind it may not be thread-safe;
    it is called for the next epoch up to `prefetch` batches before that epoch begins.

    Attributes:
        steps_per_epoch: batches in an epoch.
    """

    def __init__(
        self,
        dataset: Dataset,
        order: Order,
        batch_size: int,
        *,
        drop_last: bool,
        epochs: int | None = None,
        start_epoch: int = 0,
        start_step: int = 0,
        workers: int | None = None,
        prefetch: int = 2,
    ) -> None:
        """Describe the stream; threads start with the first batch.

        Args:
            dataset: where the samples come from; its `image` is called by several threads.
            order: the order of each epoch.
            batch_size: samples in a batch.
            drop_last: True for training: an epoch has floor(n / batch_size) batches and leaves out the last
                n mod batch_size samples of its order. False for evaluation: the last batch may be smaller.
            epochs: the stream ends before this epoch; None means never.
            start_epoch: epoch of the first batch.
            start_step: place of the first batch in its epoch; `steps_per_epoch` means the next epoch's first.
            workers: reading threads; None means `default_workers()`.
            prefetch: batches read ahead of the one that is asked for. Memory is at most prefetch + 1
                batches, and those that the caller holds.

        Raises:
            UserError: a size is out of range, or with drop_last an epoch would have no batch.
        """
        workers = default_workers() if workers is None else workers
        for name, value, least in (
            ("batch_size", batch_size, 1),
            ("workers", workers, 1),
            ("prefetch", prefetch, 0),
            ("start_epoch", start_epoch, 0),
        ):
            if value < least:
                raise UserError(f"{name}: found {value}, expected at least {least}: choose a larger number")
        n = len(dataset)
        if drop_last and batch_size > n:
            raise UserError(
                f"batch_size: found {batch_size} for {n} training images, expected at most {n}: "
                "choose a smaller batch size or add images"
            )
        self.steps_per_epoch = n // batch_size if drop_last else -(-n // batch_size)
        if not 0 <= start_step <= self.steps_per_epoch:
            raise UserError(
                f"start_step: found {start_step}, expected 0 to {self.steps_per_epoch} for {n} images in "
                f"batches of {batch_size}: resume with the data set and batch size of the run"
            )
        self._dataset = dataset
        self._order = order
        self._batch_size = batch_size
        self._epochs = epochs
        self._workers = workers
        self._prefetch = prefetch
        self._position = self._carry(start_epoch, start_step)
        self._submitted = self._position
        self._permutation: tuple[int, np.ndarray] | None = None
        self._pending: deque[tuple[Batch, list[Future[None]]]] = deque()
        self._pool: ThreadPoolExecutor | None = None
        self._stop = threading.Event()

    @property
    def position(self) -> tuple[int, int]:
        """(epoch, step) of the next batch: what to give as start_epoch and start_step to go on from here."""
        return self._position

    def __enter__(self) -> "BatchStream":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __next__(self) -> Batch:
        """Give the next batch, waiting until it is read.

        Raises:
            StopIteration: after the last batch, after an error, and when closed.
            Exception: what reading one of its samples raised; of several, the first in the batch.
        """
        if self._stop.is_set():
            raise StopIteration
        try:
            while len(self._pending) <= self._prefetch and self._submit():
                pass
            if not self._pending:
                raise StopIteration
            batch, tasks = self._pending[0]
            for task in tasks:
                task.result()
        except BaseException:  # also Ctrl-C while waiting: no thread may outlive the loop
            self.close()
            raise
        self._pending.popleft()
        self._position = self._carry(batch.epoch, batch.step + 1)
        return batch

    def close(self) -> None:
        """Stop reading and end the threads; each finishes at most the sample it is at. May be repeated."""
        self._stop.set()
        self._pending.clear()
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    def _carry(self, epoch: int, step: int) -> tuple[int, int]:
        """Turn the place after an epoch's last batch into the next epoch's first."""
        return (epoch, step) if step < self.steps_per_epoch else (epoch + 1, 0)

    def _submit(self) -> bool:
        """Have the threads read one more batch; False when there is none."""
        epoch, step = self._submitted
        if self._epochs is not None and epoch >= self._epochs:
            return False
        if self._permutation is None or self._permutation[0] != epoch:
            self._permutation = (epoch, self._checked_order(epoch))
        start = step * self._batch_size
        indices = self._permutation[1][start : start + self._batch_size]
        height, width = self._dataset.image_size
        images = np.empty((len(indices), height, width, self._dataset.channels), dtype=np.uint8)
        batch = Batch(images, self._dataset.labels[indices].astype(np.int64), indices, epoch, step)
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._workers, thread_name_prefix=THREAD_NAME)
        tasks = [
            self._pool.submit(self._read, batch, first) for first in range(0, len(indices), SAMPLES_PER_TASK)
        ]
        self._pending.append((batch, tasks))
        self._submitted = self._carry(epoch, step + 1)
        return True

    def _read(self, batch: Batch, first: int) -> None:
        """Read some samples of a batch into their places; runs in a thread."""
        for place in range(first, min(first + SAMPLES_PER_TASK, len(batch.indices))):
            if self._stop.is_set():
                return
            batch.images[place] = self._dataset.image(int(batch.indices[place]), batch.epoch)

    def _checked_order(self, epoch: int) -> np.ndarray:
        """Give the order of an epoch as int64, checked: a wrong one would lose samples without a word."""
        n = len(self._dataset)
        order = np.asarray(self._order(epoch))
        if order.shape != (n,) or order.dtype.kind not in "iu":
            raise ValueError(f"order({epoch}): {order.dtype} of shape {order.shape}, not integers of ({n},)")
        if order.min() < 0 or order.max() >= n or np.bincount(order, minlength=n).max() > 1:
            raise ValueError(f"order({epoch}) is not a permutation of 0..{n - 1}")
        return order.astype(np.int64)
