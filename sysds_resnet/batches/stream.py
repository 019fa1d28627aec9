"""The stream of batches of a data set, read ahead, in spite of broken images and killed readers."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np

from sysds_resnet.batches.order import BatchOrder, Order, SamplesAt, check_least
from sysds_resnet.batches.readers import LOST, Readers, Samples
from sysds_resnet.errors import UserError
from sysds_resnet.images.datasets import Dataset

SAMPLES_PER_TASK = 8
MAX_RESTARTS = 3  # how often killed readers are replaced for one batch

OnError = Callable[[Dataset, int, str], None]
"""A function that is told a data set, a position that cannot be read, and why; its error ends the stream."""


@dataclass(frozen=True, eq=False)
class Batch:
    """One batch of N samples.

    Attributes:
        images: The images, uint8 of shape (N, H, W, C), not normalised.
        labels: The 0-based labels, int64 of shape (N,).
        indices: The positions in the data set, int64 of shape (N,).
        epoch: The epoch of the batch, from 0.
        step: The place of the batch in its epoch, from 0.
        wait: The seconds that its taker waited for it.
    """

    images: np.ndarray
    labels: np.ndarray
    indices: np.ndarray
    epoch: int
    step: int
    wait: float

    def __len__(self) -> int:
        """Gives the number of samples N."""
        return len(self.labels)


@dataclass(eq=False)
class _Pending:
    """A batch that is being read, task by task."""

    epoch: int
    step: int
    parts: list[SamplesAt]
    tasks: list[Future[Samples]]


def raise_error(_dataset: Dataset, _index: int, reason: str) -> None:
    """Ends the stream at the first sample that cannot be read; the default `OnError`."""
    raise UserError(reason)


class BatchStream(Iterator[Batch]):
    """The batches of a data set, epoch after epoch, read ahead by workers.

    A `with` statement or `close` ends it. What a batch holds depends only on the data set, the order, the
    repeats (`BatchOrder`) and the position, never on the number of workers or on speed.

    `order` is only called by the thread that iterates, since what stands behind it may not be thread-safe; it
    is called for the next epoch up to `prefetch` batches before that epoch begins.

    Attributes:
        steps_per_epoch: The number of batches in an epoch.
    """

    def __init__(
        self,
        dataset: Dataset,
        order: Order,
        batch_size: int,
        readers: Readers | None = None,
        *,
        drop_last: bool,
        repeats: int = 1,
        epochs: int | None = None,
        start_epoch: int = 0,
        start_step: int = 0,
        places: np.ndarray | None = None,
        prefetch: int = 2,
        on_error: OnError = raise_error,
    ) -> None:
        """Describes the stream; reading starts with the first batch.

        Args:
            dataset: The data set that the samples come from.
            order: The order of each epoch.
            batch_size: The number of samples in a batch.
            readers: The workers that read; `dataset` is one of theirs, and they outlive the stream. None
                means readers of its own.
            drop_last: Whether all batches have `batch_size` samples, for training, as in `BatchOrder`. With
                it, the next good image of the data set takes the place of one that cannot be read; without, a
                batch with images that cannot be read is smaller.
            repeats: The number of times that each sample comes, as in `BatchOrder`.
            epochs: The epoch from which on there are no batches; None means that they never end.
            start_epoch: The epoch of the first batch.
            start_step: The place of the first batch in its epoch.
            places: The places in each batch of the samples to read, as in `BatchOrder`; by default all.
            prefetch: The number of batches read ahead of the one that is asked for. Memory is at most
                prefetch + 1 batches, and those that the caller holds.
            on_error: What to do with samples that cannot be read.

        Raises:
            UserError: If a size is out of range, or with drop_last an epoch would have no batch.
        """
        self._batches = BatchOrder(
            len(dataset),
            order,
            batch_size,
            drop_last=drop_last,
            repeats=repeats,
            epochs=epochs,
            start_epoch=start_epoch,
            start_step=start_step,
            places=places,
        )
        check_least("prefetch", prefetch, 0)
        self.steps_per_epoch = self._batches.steps_per_epoch
        self._dataset = dataset
        self._size = batch_size if places is None else len(places)
        self._readers = Readers([dataset]) if readers is None else readers
        self._owns_readers = readers is None
        self._drop_last = drop_last
        self._prefetch = prefetch
        self._on_error = on_error
        self._position = self._batches.position
        self._pending: deque[_Pending] = deque()
        self._closed = False

    @property
    def position(self) -> tuple[int, int]:
        """The (epoch, step) of the next batch: the start_epoch and start_step to go on with from here."""
        return self._position

    def __enter__(self) -> BatchStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __next__(self) -> Batch:
        """Gives the next batch, waiting until it is read.

        Raises:
            StopIteration: After the last batch, after an error, and when closed.
            UserError: If readers are killed again and again; or what `on_error` raises.
        """
        if self._closed:
            raise StopIteration
        began = time.perf_counter()
        try:
            while len(self._pending) <= self._prefetch and self._submit():
                pass
            if not self._pending:
                raise StopIteration
            pending = self._pending[0]
            batch = self._assemble(pending, self._results(pending), began)
        except BaseException:  # also Ctrl-C while waiting
            self.close()
            raise
        self._pending.popleft()
        self._position = self._batches.after(pending.epoch, pending.step)
        return batch

    def close(self) -> None:
        """Stops reading ahead. It may be called again."""
        self._closed = True
        self._pending.clear()
        if self._owns_readers:
            self._readers.close()

    def _results(self, pending: _Pending) -> list[Samples]:
        """Gives what the tasks of a batch read; tasks whose readers were killed are given to new ones."""
        for _ in range(MAX_RESTARTS):
            if not any(map(_is_lost, pending.tasks)):
                break
            for batch in self._pending:  # one killed process takes the tasks of all batches with it
                batch.tasks = [
                    self._task(part) if task.done() and _is_lost(task) else task
                    for part, task in zip(batch.parts, batch.tasks, strict=True)
                ]
        lost = [part for part, task in zip(pending.parts, pending.tasks, strict=True) if _is_lost(task)]
        if not lost:
            return [task.result() for task in pending.tasks]
        indices = lost[0].indices
        raise UserError(
            f"workers: found a reading process killed {MAX_RESTARTS + 1} times, last at "
            f"{self._dataset.name(int(indices[0]))} or the {len(indices) - 1} images after it in the epoch, "
            "expected it to live; lower --workers if memory ran out, or check these files"
        )

    def _assemble(self, pending: _Pending, results: list[Samples], began: float) -> Batch:
        for index, reason in (error for samples in results for error in samples.errors):
            self._on_error(self._dataset, index, reason)
        indices = np.concatenate([samples.indices for samples in results])
        if self._drop_last and len(indices) < self._size:
            raise UserError("images: found none that can be read: check the data set")
        return Batch(
            np.concatenate([samples.images for samples in results]),
            self._dataset.labels[indices].astype(np.int64),
            indices,
            pending.epoch,
            pending.step,
            time.perf_counter() - began,
        )

    def _submit(self) -> bool:
        """Has one more batch read; gives False when there is none."""
        samples = next(self._batches, None)
        if samples is None:
            return False
        parts = [
            SamplesAt(part.indices[i : i + SAMPLES_PER_TASK], part.epoch)
            for part in samples.parts
            for i in range(0, len(part.indices), SAMPLES_PER_TASK)
        ]
        tasks = [self._task(part) for part in parts]
        self._pending.append(_Pending(samples.epoch, samples.step, parts, tasks))
        return True

    def _task(self, part: SamplesAt) -> Future[Samples]:
        return self._readers.submit(self._dataset, part.indices, part.epoch, replace=self._drop_last)


def _is_lost(task: Future[Samples]) -> bool:
    """Tells whether a task's reader was killed before it was done; waits for the task's end."""
    return isinstance(task.exception(), LOST)
