"""The steps of a run: where its batches come from, and what does a step on each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from sysds_resnet.batches.balance import balanced_order
from sysds_resnet.batches.order import Order
from sysds_resnet.batches.readers import Readers
from sysds_resnet.batches.stream import Batch, BatchStream, OnError, raise_error
from sysds_resnet.classes.labels import MixedLabels
from sysds_resnet.images import Dataset
from sysds_resnet.images.pixels.mixing import Mixing
from sysds_resnet.network.arrays import SentImages
from sysds_resnet.report.events import StepMetrics
from sysds_resnet.training.optimizer import Optimizer
from sysds_resnet.training.settings import TrainSettings
from sysds_resnet.training.state import State

Update = Callable[[np.ndarray | SentImages, np.ndarray | MixedLabels, Optimizer], StepMetrics]
Send = Callable[[np.ndarray, Optimizer], SentImages]


class Steps:
    """The steps of a run in their order: its batches, which this process reads, and what does a step on each.

    Args:
        stream: The stream of batches, or of this process's part of each.
        batch_size: The number of images in a whole batch.
        mixing: How the images of a batch are mixed with each other (mixup, CutMix).
        seed: The seed of the mixing.
        update: A function that does a step: `State.update`, or one that wraps it.
        send: A function that copies images into the engine during the step before theirs: `State.send`. None
            where steps take so long that the copying does not matter, but the memory for it does.
        partner: Whether the stream gives one more image before those of the step, for the first of them to be
            mixed with.
        measured: Further figures of the last step, which `update` changes.

    Attributes:
        steps_per_epoch: The number of batches in an epoch.
        batch_size: The number of images in a whole batch.
        measured: Further figures of the last step that are to be reported, by name.
    """

    def __init__(
        self,
        stream: BatchStream,
        batch_size: int,
        mixing: Mixing,
        seed: int,
        update: Update,
        send: Send | None = None,
        partner: bool = False,
        measured: Mapping[str, Any] | None = None,
    ) -> None:
        self._stream, self._mixing, self._seed, self._update = stream, mixing, seed, update
        self._send, self._partner = send, partner
        self.batch_size = batch_size
        self.measured: Mapping[str, Any] = {} if measured is None else measured
        self._thread = ThreadPoolExecutor(1, "sysds-resnet-send") if send else None
        self._ahead: Future[Batch] | None = None
        self.steps_per_epoch = stream.steps_per_epoch

    def __next__(self) -> Batch:
        """Gives the next batch, which may have been read and sent during the step before."""
        if self._ahead is None:
            return self._next(None)
        start = time.perf_counter()
        ahead, self._ahead = self._ahead, None
        return replace(ahead.result(), wait=time.perf_counter() - start)

    def update(self, batch: Batch, optimizer: Optimizer) -> StepMetrics:
        """Does the step, and has the next batch sent meanwhile if there is a `send`."""
        if self._thread:
            self._ahead = self._thread.submit(self._next, optimizer)
        return self._update(batch.images, batch.labels, optimizer)

    def close(self) -> None:
        """Ends the thread that sends."""
        if self._thread:
            self._thread.shutdown(cancel_futures=True)

    def _next(self, optimizer: Optimizer | None) -> Batch:
        """Gives the next batch with its images mixed; they are sent if an optimizer says in which parts."""
        batch = next(self._stream)
        images, labels = batch.images, batch.labels
        if self._mixing:
            images, labels = self._mixing.apply(images, labels, self._seed, batch.epoch, batch.step)
            if self._partner:
                images, labels = images[1:], labels[1:]
        if optimizer is not None:
            images = self._send(images, optimizer)
        return replace(batch, images=images, labels=labels)


def training_order(settings: TrainSettings, state: State, train: Dataset) -> Order:
    """Gives the order of the training images in each epoch of a run."""

    def order(epoch: int) -> np.ndarray:
        return state.order(len(train), settings.seed, epoch, settings.shuffle_block)

    if settings.sampling == "balanced":
        return balanced_order(order, train.labels, settings.seed)
    return order


@contextmanager
def training_steps(
    settings: TrainSettings,
    state: State,
    train: Dataset,
    readers: Readers,
    on_error: OnError = raise_error,
    update: Update | None = None,
    own: range | None = None,
    measured: Mapping[str, Any] | None = None,
) -> Iterator[Steps]:
    """Gives steps on this machine from the point that the state's progress marks, in a `with` statement.

    Args:
        settings: The settings of the run.
        state: The state that the steps change.
        train: The training images, drawn without replacement in each epoch; the last partial batch is left
            out.
        readers: The readers of these images.
        on_error: A function that is told of images that cannot be read.
        update: A function that does a step in place of `state.update`.
        own: The places in each batch of the images that this process computes; by default all.
        measured: Further figures of the last step, which `update` changes.
    """
    mixing, places = settings.mixing(), None
    if own is not None:
        # the first image is mixed with the one before it in the batch, or with the last one
        places = np.arange(own.start - bool(mixing), own.stop)
    with BatchStream(
        train,
        training_order(settings, state, train),
        settings.batch_size,
        readers,
        drop_last=True,
        repeats=settings.repeats,
        epochs=settings.epochs,
        start_epoch=state.progress.epoch,
        start_step=state.progress.step_in_epoch,
        places=places,
        prefetch=settings.prefetch,
        on_error=on_error,
    ) as stream:
        steps = Steps(
            stream,
            settings.batch_size,
            mixing,
            settings.seed,
            update or state.update,
            send=state.send if state.model.engine.gpu else None,
            partner=own is not None,
            measured=measured,
        )
        with closing(steps):
            yield steps
