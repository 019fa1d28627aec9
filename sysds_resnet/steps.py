"""Where the batches of a run come from, and what does a step on one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np

from sysds_resnet.batches import BatchStream, OnError, raise_error
from sysds_resnet.images import Dataset
from sysds_resnet.images.mixing import Mixing
from sysds_resnet.readers import Readers
from sysds_resnet.state import Optimizer, State, StepMetrics
from sysds_resnet.train_settings import TrainSettings

Update = Callable[[np.ndarray, np.ndarray, Optimizer], StepMetrics]


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
    """

    measured: Mapping[str, Any] = {}

    def __init__(self, stream: BatchStream, mixing: Mixing, seed: int, update: Update) -> None:
        self._stream, self._mixing, self._seed, self._update = stream, mixing, seed, update
        self.steps_per_epoch = stream.steps_per_epoch

    def __next__(self) -> StepBatch:
        """As of `BatchStream`."""
        return next(self._stream)

    def update(self, batch: StepBatch, optimizer: Optimizer) -> StepMetrics:
        """Mixes the images, and does the step."""
        images, labels = batch.images, batch.labels
        if self._mixing:
            images, labels = self._mixing.apply(images, labels, self._seed, batch.epoch, batch.step)
        return self._update(images, labels, optimizer)


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
        yield LocalSteps(stream, settings.mixing(), settings.seed, update or state.update)
