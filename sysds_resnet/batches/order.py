"""Which samples are in which batch: their order, their repetitions, and the place to resume from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from sysds_resnet.errors import UserError

REPETITION = 2**32
"""The number that each repetition of a sample in an epoch adds to the epoch, so that the sample is augmented
anew; no run has as many epochs."""

Order = Callable[[int], np.ndarray]
"""A function of an epoch alone that gives the order of n samples in it: different integers of shape (n,).

A number below n is the position of a sample. Where a sample comes more than once in an epoch, and others
therefore do not come, the numbers of its further appearances are its position plus n, plus 2n and so on."""


def sequential_order(n: int) -> Order:
    """Gives the order 0, 1, ..., n-1 in every epoch, for evaluation."""
    return lambda epoch: np.arange(n)


@dataclass(frozen=True, eq=False)
class SamplesAt:
    """The positions of some samples, of shape (k,), and the epoch in which they are seen."""

    indices: np.ndarray
    epoch: int


@dataclass(frozen=True, eq=False)
class BatchSamples:
    """The samples of a batch.

    Attributes:
        epoch: The epoch of the batch, from 0.
        step: The place of the batch in its epoch, from 0.
        parts: The samples, in this order; each part has those of one repetition.
    """

    epoch: int
    step: int
    parts: list[SamplesAt]


class BatchOrder(Iterator[BatchSamples]):
    """The batches of a data set by the positions of their samples, epoch after epoch.

    With `repeats`, each sample comes several times, augmented anew each time (Hoffer et al.,
    https://arxiv.org/abs/1901.09335): k samples come repeats times in the place of k*repeats samples that
    come once, as in MultiGrain (Berman et al., https://arxiv.org/abs/1902.05509) and torchvision's RASampler.
    An epoch has as many batches as without, and takes only the first n / repeats samples of its order. A
    batch has all first appearances, then all second ones and so on. So neighbours, which mixing mixes, are
    different samples, and so are the images of a micro-batch of up to batch_size / repeats, from which norms
    take their statistics.

    Attributes:
        steps_per_epoch: The number of batches in an epoch.
    """

    def __init__(
        self,
        n: int,
        order: Order,
        batch_size: int,
        *,
        drop_last: bool,
        repeats: int = 1,
        epochs: int | None = None,
        start_epoch: int = 0,
        start_step: int = 0,
        places: np.ndarray | None = None,
    ) -> None:
        """Describes the batches.

        Args:
            n: The number of samples in the data set.
            order: The order of each epoch.
            batch_size: The number of samples in a batch.
            drop_last: True for training: an epoch has floor(n / batch_size) batches and leaves out the last n
                mod batch_size samples of its order. False for evaluation: the last batch may be smaller.
            repeats: The number of times that each sample comes, in the same batch except where a batch ends
                in between.
            epochs: The epoch from which on there are no batches; None means that they never end.
            start_epoch: The epoch of the first batch.
            start_step: The place of the first batch in its epoch; `steps_per_epoch` means the next epoch's
                first.
            places: The places in a batch, from 0, of the samples to give, for a process that computes a part
                of each batch; -1 is the last place. By default all samples are given. It needs `drop_last`.

        Raises:
            UserError: If a size is out of range, or with drop_last an epoch would have no batch.
        """
        for name, value, least in (
            ("batch_size", batch_size, 1),
            ("repeats", repeats, 1),
            ("start_epoch", start_epoch, 0),
        ):
            check_least(name, value, least)
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
        self._n, self._order, self._batch_size = n, order, batch_size
        self._repeats, self._epochs, self._places = repeats, epochs, places
        self._next = self.after(start_epoch, start_step - 1)
        self._permutation: tuple[int, np.ndarray] | None = None

    @property
    def position(self) -> tuple[int, int]:
        """The (epoch, step) of the next batch."""
        return self._next

    def after(self, epoch: int, step: int) -> tuple[int, int]:
        """Gives the (epoch, step) of the batch after this one."""
        return (epoch, step + 1) if step + 1 < self.steps_per_epoch else (epoch + 1, 0)

    def __next__(self) -> BatchSamples:
        """Gives the next batch."""
        epoch, step = self._next
        if self._epochs is not None and epoch >= self._epochs:
            raise StopIteration
        if self._permutation is None or self._permutation[0] != epoch:
            self._permutation = (epoch, self._checked_order(epoch))
        self._next = self.after(epoch, step)
        parts = self._parts(self._permutation[1], epoch, step)
        return BatchSamples(epoch, step, parts if self._places is None else _at(self._places, parts))

    def _parts(self, order: np.ndarray, epoch: int, step: int) -> list[SamplesAt]:
        """Divides a batch by repetition.

        If each sample of the order were repeated on the spot, place p would have repetition p mod repeats of
        sample p // repeats, and the batch would be a range of places. So the batch has a range of the order
        for each repetition.
        """
        start = step * self._batch_size
        stop = min(start + self._batch_size, len(order))
        parts = []
        for repetition in range(self._repeats):
            first, end = (-(-(place - repetition) // self._repeats) for place in (start, stop))
            appearances, samples = np.divmod(order[first:end], self._n)
            for appearance in np.unique(appearances):
                seen = int(appearance) * self._repeats + repetition
                parts.append(SamplesAt(samples[appearances == appearance], epoch + seen * REPETITION))
        return parts

    def _checked_order(self, epoch: int) -> np.ndarray:
        """Gives the order of an epoch as int64, checked, as a wrong one would lose samples without a word."""
        n = self._n
        order = np.asarray(self._order(epoch))
        if order.shape != (n,) or order.dtype.kind not in "iu":
            raise ValueError(f"order({epoch}): {order.dtype} of shape {order.shape}, not integers of ({n},)")
        again = order[order >= n]
        if order.min() < 0 or len(np.unique(order)) < n or not np.isin(again - n, order).all():
            raise ValueError(
                f"order({epoch}) is not a permutation of 0..{n - 1}, nor of samples that come again"
            )
        return order.astype(np.int64)


def _at(places: np.ndarray, parts: list[SamplesAt]) -> list[SamplesAt]:
    """Gives the samples at some places of a batch, in the order of the places."""
    indices = np.concatenate([part.indices for part in parts])[places]
    epochs = np.concatenate([np.full(len(part.indices), part.epoch) for part in parts])[places]
    bounds = [0, *np.flatnonzero(np.diff(epochs)) + 1, len(places)]
    return [SamplesAt(indices[start:end], int(epochs[start])) for start, end in pairwise(bounds)]


def check_least(name: str, value: int, least: int) -> None:
    """Raises a UserError unless a number is at least `least`; the error calls it `name`."""
    if value < least:
        raise UserError(f"{name}: found {value}, expected at least {least}: choose a larger number")
