"""The training loop: epochs of steps, an evaluation after each."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from sysds_resnet.batches.order import sequential_order
from sysds_resnet.batches.readers import Readers
from sysds_resnet.batches.stream import Batch, BatchStream, OnError, raise_error
from sysds_resnet.engine import Engine
from sysds_resnet.errors import NotFinite, UserError
from sysds_resnet.images import Dataset
from sysds_resnet.network.model import ResNet, default_batch
from sysds_resnet.system.ahead import ahead
from sysds_resnet.training.state import Optimizer, Progress, State, StepMetrics
from sysds_resnet.training.steps import StepBatch, Steps

MAX_SKIPPED = 10  # updates in a row that are left out before training is given up
STEP_SHARE = 0.45  # of the heap, for what a step keeps
# Values that a training step keeps for each pixel of the input, by depth: what forward_train caches (106,
# 157, 343, 550, 777 for two images of 128 x 128, fewer for more pixels) and the few matrices at work.
_VALUES_PER_PIXEL = {18: 135, 34: 190, 50: 400, 101: 620, 152: 850}

GPU_SHARE = 0.85  # of a GPU's free memory, for what a step keeps
# Values that a training step keeps on a GPU for each pixel of the input, by depth: of ResNet-50 measured
# (benchmarks/results/gpu.json, 142 MB an image of 224 x 224 in single precision, with what is kept to be used
# again), of the others in the ratio of what forward_train caches.
_GPU_VALUES_PER_PIXEL = {18: 340, 34: 420, 50: 720, 101: 960, 152: 1260}

OnNan = Literal["stop", "skip"]


@dataclass(frozen=True)
class StepEvent:
    """A step is done: its number (from 1), epoch (from 1), metrics, and seconds since the one before.

    `data_wait` are the seconds of these that it waited for its batch; `measured` is what else is to be told.
    """

    step: int
    epoch: int
    metrics: StepMetrics
    seconds: float
    images: int
    data_wait: float
    measured: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class EpochEvent:
    """An epoch is done; the fields are the columns of metrics.jsonl.

    Of an epoch that was resumed, images_per_s, seconds and data_wait_s are of what was done since.
    """

    epoch: int
    step: int
    train_loss: float
    val_loss: float | None
    val_top1: float | None
    val_top5: float | None
    lr: float
    images_per_s: float | None
    seconds: float
    data_wait_s: float


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
    """Trains from where the state's progress says, reporting after every step and epoch.

    Whenever it reports or ends, the state can be saved and training resumed from it.

    Args:
        state: Changed in place.
        steps: Batches from where the state's progress says, and what does a step on one.
        optimizer: Of every step.
        epochs: Where training ends.
        validate: Asked after each epoch: "loss", "top1" and "top5", as far as there are any, or None if it
            was stopped.
        on_nan: Whether a step whose loss or gradient is not finite ends training, or is left out.
        stopped: Asked after each step; the loop ends there if it is true.

    Raises:
        NotFinite: With on_nan "stop", or after `MAX_SKIPPED` steps in a row; the state is as before it.
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
            n += len(batch)
            seconds = time.perf_counter() - before
            yield StepEvent(
                progress.step, progress.epoch + 1, metrics, seconds, len(batch), batch.wait, steps.measured
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
                val_top5=scores.get("top5"),
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
    steps: Steps, batch: StepBatch, optimizer: Optimizer, on_nan: OnNan, progress: Progress
) -> StepMetrics:
    """A step, left out if it is not finite and that is asked for."""
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
) -> dict[str, float] | None:
    """`evaluate` with the weights that the run keeps; nothing for no data set, None if stopped meanwhile."""
    if val is None:
        return {}
    model = state.model
    trained = model.weights
    model.weights = state.averaged
    try:
        return evaluate(model, val, readers, on_error, stopped)
    finally:
        model.weights = trained


def evaluate(
    model: ResNet,
    dataset: Dataset,
    readers: Readers,
    on_error: OnError = raise_error,
    stopped: Callable[[], bool] = lambda: False,
) -> dict[str, float] | None:
    """Mean "loss" and shares "top1" and "top5" over the "images" of a data set that can be read.

    Asks `stopped` after each batch, and gives None if it is true.

    Raises:
        UserError: What `on_error` raises, or none can be read.
    """
    total, n = np.zeros(3), 0
    for batch in read_all(model.engine, dataset, readers, on_error, model.send):
        scores = model.evaluate(batch.images, batch.labels)
        total += len(batch.labels) * np.array([scores["loss"], scores["top1"], scores["top5"]])
        n += len(batch.labels)
        if stopped():
            return None
    if not n:
        raise UserError("images: found none that can be read, expected some; check the data set")
    loss, top1, top5 = (total / n).tolist()
    return {"images": n, "loss": loss, "top1": top1, "top5": top5}


def read_all(
    engine: Engine, dataset: Dataset, readers: Readers, on_error: OnError, send: Callable[[np.ndarray], Any]
) -> Iterator[Batch]:
    """A whole data set in its order, in batches that fit the engine's heap, none of them empty.

    Args:
        engine: Of the networks that score it.
        dataset: To read.
        readers: Who read it.
        on_error: What to do with images that cannot be read.
        send: What the images of a batch become, where there is a GPU while the batch before is scored. On the
            CPU, which has something to do, and where memory is the heap's, they stay arrays.
    """
    size = min(default_batch(engine, *dataset.image_size), len(dataset))
    order = sequential_order(len(dataset))
    with BatchStream(dataset, order, size, readers, drop_last=False, epochs=1, on_error=on_error) as stream:
        batches = (batch for batch in stream if len(batch.labels))
        if engine.gpu:
            batches = ahead(replace(batch, images=send(batch.images)) for batch in batches)
        yield from batches


def choose_micro_batch(
    engine: Engine, depth: int, image_size: tuple[int, int], batch_size: int, asked: int | None
) -> int:
    """Images whose gradients are computed at a time.

    Args:
        engine: Whose heap they must fit, or its executors'.
        depth: Of the network.
        image_size: Height and width in pixels.
        batch_size: Images in a step.
        asked: The user's choice, or None for the largest that fits and divides the batch, with work for all
            executors.

    Raises:
        UserError: If the batch is no multiple of what the user chose.
    """
    if asked is not None:
        if batch_size % asked:
            raise UserError(
                f"micro_batch: found {asked} with batch_size {batch_size}, expected a divisor of the batch "
                "size; choose one"
            )
        return asked
    workers = engine.spark.workers if engine.spark else engine.workers
    if engine.gpu:
        values = 8 if engine.multiply.precision == "double" else 4
        bytes_of_image = _GPU_VALUES_PER_PIXEL[depth] * values * image_size[0] * image_size[1]
        largest = max(1, int(GPU_SHARE * engine.gpu_memory()[0] / bytes_of_image))
    else:
        heap = engine.spark.heap if engine.spark else engine.heap // workers
        largest = largest_micro_batch(heap, depth, image_size, engine.fp32)
    limit = min(largest, max(1, batch_size // workers))
    return max(n for n in range(1, batch_size + 1) if batch_size % n == 0 and n <= limit)


def largest_micro_batch(heap: int, depth: int, image_size: tuple[int, int], fp32: bool) -> int:
    """Images whose gradients can be computed at a time in so many bytes of heap; at least 1.

    Args:
        heap: Bytes.
        depth: Of the network.
        image_size: Height and width in pixels.
        fp32: Whether activations are kept in FP32.
    """
    bytes_of_image = _VALUES_PER_PIXEL[depth] * (4 if fp32 else 8) * image_size[0] * image_size[1]
    return max(1, int(STEP_SHARE * heap / bytes_of_image))
