"""The training loop: epochs of steps, an evaluation after each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from sysds_resnet.batches import Batch, BatchStream, OnError, raise_error, sequential_order
from sysds_resnet.engine import Engine
from sysds_resnet.errors import UserError
from sysds_resnet.images import Dataset
from sysds_resnet.images.mixing import Mixing
from sysds_resnet.model import ResNet, default_batch
from sysds_resnet.readers import Readers
from sysds_resnet.state import Optimizer, State, StepMetrics

NO_MIXING = Mixing()
STEP_SHARE = 0.45  # of the heap, for what a step keeps
# Bytes that a training step keeps for each pixel of the input, by depth: what forward_train caches in
# float64 (1490, 1890, 3202, 4290, 5634 at 224 x 224) and the few matrices that are at work.
_BYTES_PER_PIXEL = {18: 1900, 34: 2300, 50: 3500, 101: 4600, 152: 6000}


@dataclass(frozen=True)
class StepEvent:
    """A step is done: its number (from 1), epoch (from 1), metrics, and seconds since the one before.

    `data_wait` are the seconds of these that it waited for its batch.
    """

    step: int
    epoch: int
    metrics: StepMetrics
    seconds: float
    images: int
    data_wait: float


@dataclass(frozen=True)
class EpochEvent:
    """An epoch is done; the fields are the columns of metrics.jsonl."""

    epoch: int
    step: int
    train_loss: float
    val_loss: float | None
    val_top1: float | None
    val_top5: float | None
    lr: float
    images_per_s: float
    seconds: float
    data_wait_s: float


def training_loop(
    state: State,
    train: Dataset,
    val: Dataset | None,
    optimizer: Optimizer,
    *,
    batch_size: int,
    epochs: int,
    seed: int,
    start: tuple[int, int] = (0, 0),
    mixing: Mixing = NO_MIXING,
    workers: int | None = None,
    prefetch: int = 2,
    on_error: OnError = raise_error,
    update: Callable[[np.ndarray, np.ndarray, Optimizer], StepMetrics] | None = None,
) -> Iterator[StepEvent | EpochEvent]:
    """Trains, reporting after every step and epoch; stop iterating to stop training.

    Args:
        state: Changed in place.
        train: Drawn from without replacement in each epoch; the last partial batch is left out.
        val: Evaluated after each epoch, if given.
        optimizer: Of every step.
        batch_size: Images in a step.
        epochs: Where training ends.
        seed: Of the samples' order and of mixing.
        start: Epoch and step in the epoch to begin with.
        mixing: Of the images of a batch.
        workers: Processes, or threads, that read images; by default one for each core.
        prefetch: Batches that are read ahead.
        on_error: What to do with images that cannot be read.
        update: Does a step in the place of `state.update`.
    """
    update = update or state.update
    order = lambda epoch: state.order(len(train), seed, epoch)  # noqa: E731
    losses: list[float] = []
    waited = 0.0
    began = before = time.perf_counter()
    first = start[1]  # an epoch that was resumed counts what it did since
    with (
        Readers([train] if val is None else [train, val], workers) as readers,
        BatchStream(
            train,
            order,
            batch_size,
            readers,
            drop_last=True,
            epochs=epochs,
            start_epoch=start[0],
            start_step=start[1],
            prefetch=prefetch,
            on_error=on_error,
        ) as stream,
    ):
        for batch in stream:
            images, labels = batch.images, batch.labels
            if mixing:
                images, labels = mixing.apply(images, labels, seed, batch.epoch, batch.step)
            metrics = update(images, labels, optimizer)
            now = time.perf_counter()
            losses.append(metrics.loss)
            waited += batch.wait
            yield StepEvent(state.step, batch.epoch + 1, metrics, now - before, len(labels), batch.wait)
            if batch.step == stream.steps_per_epoch - 1:
                seconds = time.perf_counter() - began
                scores = evaluate(state.model, val, readers, on_error) if val is not None else {}
                yield EpochEvent(
                    epoch=batch.epoch + 1,
                    step=state.step,
                    train_loss=float(np.mean(losses)),
                    val_loss=scores.get("loss"),
                    val_top1=scores.get("top1"),
                    val_top5=scores.get("top5"),
                    lr=metrics.lr,
                    images_per_s=(batch.step + 1 - first) * batch_size / seconds,
                    seconds=seconds,
                    data_wait_s=waited,
                )
                losses, first, waited, began = [], 0, 0.0, time.perf_counter()
            before = time.perf_counter()


def evaluate(
    model: ResNet, dataset: Dataset, readers: Readers, on_error: OnError = raise_error
) -> dict[str, float]:
    """Mean "loss" and shares "top1" and "top5" over the "images" of a data set that can be read.

    Raises:
        UserError: What `on_error` raises, or none can be read.
    """
    total, n = np.zeros(3), 0
    for batch in read_all(model.engine, dataset, readers, on_error):
        scores = model.evaluate(batch.images, batch.labels, batch_size=len(batch.images))
        total += len(batch.labels) * np.array([scores["loss"], scores["top1"], scores["top5"]])
        n += len(batch.labels)
    if not n:
        raise UserError("images: found none that can be read, expected some; check the data set")
    loss, top1, top5 = (total / n).tolist()
    return {"images": n, "loss": loss, "top1": top1, "top5": top5}


def read_all(
    engine: Engine, dataset: Dataset, readers: Readers, on_error: OnError = raise_error
) -> Iterator[Batch]:
    """A whole data set in its order, in batches that fit the engine's heap, none of them empty."""
    size = min(default_batch(engine, *dataset.image_size), len(dataset))
    order = sequential_order(len(dataset))
    with BatchStream(dataset, order, size, readers, drop_last=False, epochs=1, on_error=on_error) as stream:
        yield from (batch for batch in stream if len(batch.labels))


def choose_micro_batch(
    engine: Engine, depth: int, image_size: tuple[int, int], batch_size: int, asked: int | None
) -> int:
    """Images whose gradients are computed at a time.

    Args:
        engine: Whose heap they must fit.
        depth: Of the network.
        image_size: Height and width in pixels.
        batch_size: Images in a step.
        asked: The user's choice, or None for the largest that fits and divides the batch.

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
    limit = largest_micro_batch(engine.heap, depth, image_size)
    return max(n for n in range(1, batch_size + 1) if batch_size % n == 0 and n <= limit)


def largest_micro_batch(heap: int, depth: int, image_size: tuple[int, int]) -> int:
    """Images whose gradients can be computed at a time in so many bytes of heap; at least 1."""
    return max(1, int(STEP_SHARE * heap / (_BYTES_PER_PIXEL[depth] * image_size[0] * image_size[1])))
