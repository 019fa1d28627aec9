"""Batches of a data set: order, repetitions, reading ahead, broken images, and where to resume from."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass

import numpy as np

from sysds_resnet.errors import UserError
from sysds_resnet.images.datasets import Dataset
from sysds_resnet.readers import Readers, Samples

SAMPLES_PER_TASK = 8
MAX_RESTARTS = 3  # of killed readers, without a batch in between

REPETITION = 2**32
"""What each repetition adds to the epoch in which a data set shows a sample: no run has as many epochs."""

Order = Callable[[int], np.ndarray]
"""Gives the order of an epoch: a permutation of 0..n-1, integers of shape (n,), from the epoch alone."""

OnError = Callable[[Dataset, int, str], None]
"""Is told a data set, a position that cannot be read, and why; raises what shall end the stream."""


@dataclass(frozen=True, eq=False)
class Batch:
    """One batch of N samples.

    Attributes:
        images: uint8 of shape (N, H, W, C), not normalised.
        labels: 0-based, int64 of shape (N,).
        indices: positions in the data set, int64 of shape (N,).
        epoch: epoch of the batch, from 0.
        step: place of the batch in its epoch, from 0.
        wait: seconds that its taker waited for it.
    """

    images: np.ndarray
    labels: np.ndarray
    indices: np.ndarray
    epoch: int
    step: int
    wait: float


@dataclass(frozen=True, eq=False)
class _Part:
    """Samples of a batch that one task reads: their positions, and the epoch in which they are seen."""

    indices: np.ndarray
    epoch: int


@dataclass(eq=False)
class _Pending:
    """A batch that is being read, task by task."""

    epoch: int
    step: int
    parts: list[_Part]
    tasks: list[Future[Samples]]


def sequential_order(n: int) -> Order:
    """Give the order 0, 1, ..., n-1 in every epoch, for evaluation."""
    return lambda epoch: np.arange(n)


def raise_error(_dataset: Dataset, _index: int, reason: str) -> None:
    """The `OnError` that ends the stream at the first sample that cannot be read."""
    raise UserError(reason)


class BatchStream(Iterator[Batch]):
    """The batches of a data set, epoch after epoch, read ahead by workers.

    Use it in a `with` statement or call `close`. What a batch holds depends only on the data set, the order,
    the repeats and the position, never on the number of workers or on speed.

    With `repeats`, each sample comes so many times, augmented anew each time (Hoffer et al.,
    https://arxiv.org/abs/1901.09335): k samples k*repeats times in the place of k*repeats samples once, as in
    MultiGrain (Berman et al., https://arxiv.org/abs/1902.05509) and torchvision's RASampler. An epoch has as
    many batches as without, and takes only the first n / repeats samples of its order. A batch has all first
    appearances, then all second ones and so on: so neighbours, which mixing mixes, are different samples, and
    so are the images of a micro-batch of up to batch_size / repeats, of which norms take statistics.

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
        readers: Readers | None = None,
        *,
        drop_last: bool,
        repeats: int = 1,
        epochs: int | None = None,
        start_epoch: int = 0,
        start_step: int = 0,
        prefetch: int = 2,
        on_error: OnError = raise_error,
    ) -> None:
        """Describe the stream; reading starts with the first batch.

        Args:
            dataset: where the samples come from.
            order: the order of each epoch.
            batch_size: samples in a batch.
            readers: who reads; `dataset` is one of theirs, and they outlive the stream. None means readers of
                its own.
            drop_last: True for training: an epoch has floor(n / batch_size) batches and leaves out the last
                n mod batch_size samples of its order, and the next good image of the data set takes the
                place of one that cannot be read. False for evaluation: the last batch may be smaller, and so
                may one with images that cannot be read.
            repeats: times that each sample comes, in the same batch except where a batch ends in between.
            epochs: the stream ends before this epoch; None means never.
            start_epoch: epoch of the first batch.
            start_step: place of the first batch in its epoch; `steps_per_epoch` means the next epoch's first.
            prefetch: batches read ahead of the one that is asked for. Memory is at most prefetch + 1
                batches, and those that the caller holds.
            on_error: what to do with samples that cannot be read.

        Raises:
            UserError: a size is out of range, or with drop_last an epoch would have no batch.
        """
        for name, value, least in (
            ("batch_size", batch_size, 1),
            ("repeats", repeats, 1),
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
        self._readers = Readers([dataset]) if readers is None else readers
        self._owns_readers = readers is None
        self._drop_last = drop_last
        self._repeats = repeats
        self._epochs = epochs
        self._prefetch = prefetch
        self._on_error = on_error
        self._position = self._carry(start_epoch, start_step)
        self._submitted = self._position
        self._permutation: tuple[int, np.ndarray] | None = None
        self._pending: deque[_Pending] = deque()
        self._closed = False

    @property
    def position(self) -> tuple[int, int]:
        """(epoch, step) of the next batch: what to give as start_epoch and start_step to go on from here."""
        return self._position

    def __enter__(self) -> BatchStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __next__(self) -> Batch:
        """Give the next batch, waiting until it is read.

        Raises:
            StopIteration: after the last batch, after an error, and when closed.
            UserError: readers are killed again and again, or what `on_error` raises.
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
        self._position = self._carry(pending.epoch, pending.step + 1)
        return batch

    def close(self) -> None:
        """Stop reading ahead. May be repeated."""
        self._closed = True
        self._pending.clear()
        if self._owns_readers:
            self._readers.close()

    def _results(self, pending: _Pending) -> list[Samples]:
        """What the tasks of a batch read; killed readers are replaced."""
        for restarts in range(MAX_RESTARTS + 1):
            try:
                return [task.result() for task in pending.tasks]
            except BrokenProcessPool:
                if restarts < MAX_RESTARTS:
                    self._readers.close()  # the next task starts new ones
                    for batch in self._pending:
                        batch.tasks = [self._task(part) for part in batch.parts]
        lost = next(
            (part for part, task in zip(pending.parts, pending.tasks, strict=True) if task.exception()),
            pending.parts[0],
        ).indices
        raise UserError(
            f"workers: found a reading process killed {MAX_RESTARTS + 1} times, last at "
            f"{self._dataset.name(int(lost[0]))} or the {len(lost) - 1} images after it in the epoch, "
            "expected it to live; lower --workers if memory ran out, or check these files"
        )

    def _assemble(self, pending: _Pending, results: list[Samples], began: float) -> Batch:
        for index, reason in (error for samples in results for error in samples.errors):
            self._on_error(self._dataset, index, reason)
        indices = np.concatenate([samples.indices for samples in results])
        if self._drop_last and len(indices) < self._batch_size:
            raise UserError("images: found none that can be read: check the data set")
        return Batch(
            np.concatenate([samples.images for samples in results]),
            self._dataset.labels[indices].astype(np.int64),
            indices,
            pending.epoch,
            pending.step,
            time.perf_counter() - began,
        )

    def _carry(self, epoch: int, step: int) -> tuple[int, int]:
        """Turn the place after an epoch's last batch into the next epoch's first."""
        return (epoch, step) if step < self.steps_per_epoch else (epoch + 1, 0)

    def _submit(self) -> bool:
        """Have one more batch read; False when there is none."""
        epoch, step = self._submitted
        if self._epochs is not None and epoch >= self._epochs:
            return False
        if self._permutation is None or self._permutation[0] != epoch:
            self._permutation = (epoch, self._checked_order(epoch))
        parts = self._parts(self._permutation[1], epoch, step)
        self._pending.append(_Pending(epoch, step, parts, [self._task(part) for part in parts]))
        self._submitted = self._carry(epoch, step + 1)
        return True

    def _parts(self, order: np.ndarray, epoch: int, step: int) -> list[_Part]:
        """Divide a batch into tasks, each with samples of one repetition.

        Where each sample of the order is repeated on the spot, place p has repetition p mod repeats of sample
        p // repeats, and the batch is a range of places: of each repetition a range of the order.
        """
        start = step * self._batch_size
        stop = min(start + self._batch_size, len(order))
        parts = []
        for repetition in range(self._repeats):
            first, end = (-(-(place - repetition) // self._repeats) for place in (start, stop))
            for i in range(first, end, SAMPLES_PER_TASK):
                indices = order[i : min(i + SAMPLES_PER_TASK, end)]
                parts.append(_Part(indices, epoch + repetition * REPETITION))
        return parts

    def _task(self, part: _Part) -> Future[Samples]:
        return self._readers.submit(self._dataset, part.indices, part.epoch, replace=self._drop_last)

    def _checked_order(self, epoch: int) -> np.ndarray:
        """Give the order of an epoch as int64, checked: a wrong one would lose samples without a word."""
        n = len(self._dataset)
        order = np.asarray(self._order(epoch))
        if order.shape != (n,) or order.dtype.kind not in "iu":
            raise ValueError(f"order({epoch}): {order.dtype} of shape {order.shape}, not integers of ({n},)")
        if order.min() < 0 or order.max() >= n or np.bincount(order, minlength=n).max() > 1:
            raise ValueError(f"order({epoch}) is not a permutation of 0..{n - 1}")
        return order.astype(np.int64)
