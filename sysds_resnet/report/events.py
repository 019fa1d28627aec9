"""The events of a run while it goes on: one for each step and each epoch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class StepEvent:
    """A step that was done: its number (from 1), its epoch (from 1), its metrics, and how long it took.

    `seconds` is the time that it took, `data_wait` the part of this that it waited for its batch, and
    `images` the size of the batch. `measured` has further figures by name.
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
    """An epoch that was done and validated; the fields are the columns of metrics.jsonl.

    With five classes or fewer `val_top5` is None, since the right one is always among the best five.
    In an epoch that was resumed, images_per_s, seconds and data_wait_s only cover what was done since then.
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


@dataclass(frozen=True)
class StepMetrics:
    """The metrics of a step: mean loss and shares of hits before the update, learning rate, gradient norm.

    They may be NaN if the update was left out because the loss or the gradient was not finite.
    """

    loss: float
    top1: float
    top5: float
    lr: float
    grad_norm: float
    skipped: bool = False
