"""Where the batches of a run come from, and what does a step on one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

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


class StepBatch(Protocol):
    """A batch that is ready for its step, wherever its images are.

    Attributes:
        epoch: Of the batch, from 0.
        step: Its place in the epoch, from 0.
        wait: Seconds that its taker waited for it.
    """

    epoch: int
    step: int
    wait: float

    def __len__(self) -> int:
        """Number of images."""


class Steps(Protocol):
    """Batches in their order, and what does steps on them.

    Attributes:
        steps_per_epoch: Batches in an epoch.
        measured: What else is to be told of the last step, by name.
    """

    steps_per_epoch: int
    measured: Mapping[str, Any]

    def __next__(self) -> StepBatch:
        """Waits for the next batch."""

    def update(self, batch: StepBatch, optimizer: Optimizer) -> StepMetrics:
        """Does a step, as `State.update`."""


class LocalSteps:
    """Steps in the JVM beside this process, on batches that this machine reads.

    Args:
        stream: Of the batches.
        mixing: Of the images of a batch.
        seed: Of mixing.
        update: Does a step: `State.update`, or what stands around it.
        send: Copies images into the engine ahead of their step, during the one before: `State.send`. None
            where a step takes so long that it does not matter, and memory does.
    """

    measured: Mapping[str, Any] = {}

    def __init__(
        self, stream: BatchStream, mixing: Mixing, seed: int, update: Update, send: Send | None = None
    ) -> None:
        self._stream, self._mixing, self._seed, self._update = stream, mixing, seed, update
        self._send = send
        self._thread = ThreadPoolExecutor(1, "sysds-resnet-send") if send else None
        self._ahead: Future[Batch] | None = None
        self.steps_per_epoch = stream.steps_per_epoch

    def __next__(self) -> StepBatch:
        """As of `BatchStream`."""
        if self._ahead is None:
            return self._next(None)
        start = time.perf_counter()
        ahead, self._ahead = self._ahead, None
        return replace(ahead.result(), wait=time.perf_counter() - start)

    def update(self, batch: StepBatch, optimizer: Optimizer) -> StepMetrics:
        """Does the step."""
        if self._thread:
            self._ahead = self._thread.submit(self._next, optimizer)
        return self._update(batch.images, batch.labels, optimizer)

    def close(self) -> None:
        """Ends the thread that sends."""
        if self._thread:
            self._thread.shutdown(cancel_futures=True)

    def _next(self, optimizer: Optimizer | None) -> Batch:
        """The next batch, its images mixed, and sent if the optimizer says in which parts."""
        batch = next(self._stream)
        images, labels = batch.images, batch.labels
        if self._mixing:
            images, labels = self._mixing.apply(images, labels, self._seed, batch.epoch, batch.step)
        if optimizer is not None:
            images = self._send(images, optimizer)
        return replace(batch, images=images, labels=labels)


@contextmanager
def local_steps(
    settings: TrainSettings,
    state: State,
    train: Dataset,
    readers: Readers,
    on_error: OnError = raise_error,
    update: Update | None = None,
) -> Iterator[LocalSteps]:
    """Steps on this machine, from where the state's progress says.

    Args:
        settings: Of the run.
        state: Which steps change.
        train: Drawn from without replacement in each epoch; the last partial batch is left out.
        readers: Who read it.
        on_error: What to do with images that cannot be read.
        update: Does a step in the place of `state.update`.
    """
    with BatchStream(
        train,
        lambda epoch: state.order(len(train), settings.seed, epoch, settings.shuffle_block),
        settings.batch_size,
        readers,
        drop_last=True,
        repeats=settings.repeats,
        epochs=settings.epochs,
        start_epoch=state.progress.epoch,
        start_step=state.progress.step_in_epoch,
        prefetch=settings.prefetch,
        on_error=on_error,
    ) as stream:
        send = state.send if state.model.engine.gpu else None
        steps = LocalSteps(stream, settings.mixing(), settings.seed, update or state.update, send)
        with closing(steps):
            yield steps
