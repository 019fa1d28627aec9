"""The training loop: epochs of steps, with an evaluation after each epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Literal

import numpy as np

from sysds_resnet.batches.readers import Readers
from sysds_resnet.batches.stream import Batch, OnError, raise_error
from sysds_resnet.errors import NotFinite
from sysds_resnet.images import Dataset
from sysds_resnet.network.model import Model
from sysds_resnet.report.events import EpochEvent, StepEvent, StepMetrics
from sysds_resnet.scoring.evaluation import evaluate
from sysds_resnet.training.optimizer import Optimizer
from sysds_resnet.training.progress import Progress
from sysds_resnet.training.state import State
from sysds_resnet.training.steps import Steps

MAX_SKIPPED = 10  # updates in a row that may be left out; one more ends training


OnNan = Literal["stop", "skip"]


def training_loop(
    state: State,
    steps: Steps,
    optimizer: Optimizer,
    *,
    epochs: int,
    validate: Callable[[], Mapping[str, float] | None],
    on_nan: OnNan = "stop",
    stopped: Callable[[], bool] = lambda: False,
) -> Iterator[StepEvent | EpochEvent]:
    """Trains from the point that the state's progress marks, and yields an event after every step and epoch.

    Whenever it yields or ends, the state can be saved and training resumed from it.

    Args:
        state: The state of the run, which is changed in place.
        steps: The batches from the point that the state's progress marks, and what does a step on each.
        optimizer: The optimizer of every step.
        epochs: The number of epochs after which training ends.
        validate: A function that is called after each epoch. It gives "loss", "top1" and "top5", as far as
            there are any, or None if it was stopped.
        on_nan: What happens when the loss or gradient of a step is not finite: "stop" ends training, "skip"
            leaves the update out.
        stopped: A function that is asked between steps; the loop ends if it gives True.

    Raises:
        NotFinite: If the loss or gradient is not finite, with on_nan "stop" or after `MAX_SKIPPED` such steps
            in a row; the state is as before the step.
    """
    progress = state.progress
    began = before = time.perf_counter()
    waited, n = 0.0, 0
    while progress.epoch < epochs and not stopped():
        if progress.step_in_epoch < steps.steps_per_epoch:
            batch = next(steps)
            metrics = _watched(steps, batch, optimizer, on_nan, progress)
            progress.step_in_epoch += 1
            progress.lr = metrics.lr
            if not metrics.skipped:
                progress.losses.append(metrics.loss)
            waited += batch.wait
            n += steps.batch_size
            seconds = time.perf_counter() - before
            yield StepEvent(
                step=progress.step,
                epoch=progress.epoch + 1,
                metrics=metrics,
                seconds=seconds,
                images=steps.batch_size,
                data_wait=batch.wait,
                measured=dict(steps.measured),
            )
        else:
            seconds = time.perf_counter() - began
            scores = validate()
            if scores is None:
                return
            event = EpochEvent(
                epoch=progress.epoch + 1,
                step=progress.step,
                train_loss=float(np.mean(progress.losses)) if progress.losses else math.nan,
                val_loss=scores.get("loss"),
                val_top1=scores.get("top1"),
                # of five classes or fewer, every image is a hit
                val_top5=scores.get("top5") if state.model.network.num_classes > 5 else None,
                lr=progress.lr,
                images_per_s=n / seconds if n else None,
                seconds=seconds,
                data_wait_s=waited,
            )
            progress.finish_epoch(event.val_top1)
            yield event
            began, waited, n = time.perf_counter(), 0.0, 0
        before = time.perf_counter()


def _watched(
    steps: Steps, batch: Batch, optimizer: Optimizer, on_nan: OnNan, progress: Progress
) -> StepMetrics:
    """Does a step; its update is left out if it is not finite and `on_nan` asks for that."""
    try:
        metrics = steps.update(batch, optimizer)
    except NotFinite as error:
        if on_nan == "stop" or progress.skipped_in_a_row == MAX_SKIPPED:
            raise
        progress.skip()
        return replace(error.metrics, skipped=True)
    progress.skipped_in_a_row = 0
    return metrics


def evaluate_state(
    state: State,
    val: Dataset | None,
    readers: Readers,
    on_error: OnError = raise_error,
    stopped: Callable[[], bool] = lambda: False,
    scored: Callable[[int], object] = lambda _: None,
) -> dict[str, float] | None:
    """Evaluates the weights that the run keeps: the moving average if there is one, or else the newest.

    Gives the scores of `evaluate`, which are None if it is stopped meanwhile; without a data set, no scores.
    `stopped` and `scored` are called as by `evaluate`.
    """
    if val is None:
        return {}
    with kept_weights(state) as model:
        return evaluate(model, val, readers, on_error, stopped, scored)


@contextmanager
def kept_weights(state: State) -> Iterator[Model]:
    """Gives the model with the weights that the run keeps, for a `with` statement."""
    model = state.model
    trained = model.weights
    model.weights = state.averaged
    try:
        yield model
    finally:
        model.weights = trained
