"""What a run tells while it goes on: one event for each step and each epoch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


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


@dataclass(frozen=True)
class StepMetrics:
    """What a step reports: mean loss and shares of hits before the update, learning rate, gradient's norm.

    Where an update was left out because the loss or the gradient was not finite, these may be NaN.
    """

    loss: float
    top1: float
    top5: float
    lr: float
    grad_norm: float
    skipped: bool = False
