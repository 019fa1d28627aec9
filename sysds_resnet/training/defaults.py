"""The settings that suit a data set by the number and size of its images, where nobody has given others."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from sysds_resnet.imagenet import DEFAULT_IMAGE_SIZE
from sysds_resnet.settings.flags import flag_of
from sysds_resnet.training.settings import OF_DEFAULTS, TrainSettings

FEW_STEPS = 100
"""Steps of a run below which hardly anything is learned."""

SMALLEST, SIZE_STEP = 64, 32
"""The least side of training images that is chosen, and what its sides are multiples of: the network halves
images five times, and its first layers are made for large ones."""


@dataclass(frozen=True)
class _Size:
    """What suits data sets of fewer than `below` training images.

    Small ones get small batches, for more steps in an epoch, more epochs, smaller images, which take less
    time, more weight decay, and crops that show more of an image. AdamW learns from few steps; Nesterov's
    momentum does better where there are many. Few epochs are enough for weights that have been trained on
    other images before.
    """

    below: float
    batch_size: int
    epochs: int
    epochs_of_trained: int
    optimizer: str
    weight_decay: float
    crop_area: float
    largest: int


_SIZES = (
    _Size(1_000, 16, 60, 30, "adamw", 5e-4, 0.35, 128),
    _Size(10_000, 32, 40, 20, "adamw", 5e-4, 0.35, 160),
    _Size(100_000, 64, 30, 10, "nesterov", 5e-4, 0.25, DEFAULT_IMAGE_SIZE),
    _Size(math.inf, 256, 90, 20, "nesterov", 1e-4, 0.08, DEFAULT_IMAGE_SIZE),
)
# For each optimizer the learning rate at batches of 256 images, and the power of the batch size by which it
# grows: for sgd as in https://arxiv.org/abs/1706.02677, for adamw and lamb as in
# https://arxiv.org/abs/1904.00962; LARS's trust ratio makes up for the size of the batch.
_RATES = {
    "sgd": (0.2, 1.0),
    "nesterov": (0.2, 1.0),
    "adamw": (1e-3, 0.5),
    "lamb": (4e-3, 0.5),
    "lars": (5.0, 0.0),
}


@dataclass(frozen=True)
class Choice:
    """What was chosen for a run by its training images.

    Attributes:
        values: The chosen settings by name.
        images: The number of training images.
        side: The usual length of their shorter side in pixels, if it decided about their size in training.
    """

    values: Mapping[str, Any]
    images: int
    side: int | None

    def explain(self, names: Collection[str] | None = None) -> str:
        """Gives the lines that say what was chosen for a run, or, of these settings alone, for its images."""
        shown = {name: value for name, value in self.values.items() if names is None or name in names}
        flags = " ".join(_flag(name, value) for name, value in shown.items())
        what = f"{self.images} training images"
        if "image_size" in shown:
            what += f" of about {self.side} pixels"
        how = "flags or a --recipe change that" if names is None else "as train does; flags change that"
        return f"chosen:  {flags}\n         for {what}; {how}"


def choose(settings: TrainSettings, images: int, side: int | None = None) -> Choice | None:
    """Chooses the settings of a run that were not given, by the training images.

    Args:
        settings: The settings of the run.
        images: The number of training images.
        side: The usual length of their shorter side in pixels; None if they have the size of training.

    Returns:
        The choice; None for a run that has a recipe, goes on, or has digits or synthetic images, and for one
        whose settings are all given.
    """
    if settings.recipe or settings.resume or settings.dataset in OF_DEFAULTS:
        return None
    size = next(size for size in _SIZES if images < size.below)
    trained = settings.init_from is not None
    given = {name: getattr(settings, name) for name in settings.model_fields_set}
    batch_size = given.get("batch_size", min(size.batch_size, images))
    optimizer = given.get("optimizer", "adamw" if trained else size.optimizer)
    epochs = given.get("epochs", size.epochs_of_trained if trained else size.epochs)
    rate, power = _RATES[optimizer]
    chosen = {
        "batch_size": batch_size,
        "epochs": epochs,
        "optimizer": optimizer,
        "base_lr": _rounded(rate * (batch_size / 256) ** power),
        "schedule": "cosine",
        "warmup_epochs": float(min(5, epochs // 10)),
        "weight_decay": 0.05 if optimizer in ("adamw", "lamb") else size.weight_decay,
        "label_smoothing": 0.1,
        "crop_area": size.crop_area,
    }
    if not trained:
        # else the gradients of the first steps are many times as large, and small batches do not outlive them
        chosen["zero_init_residual"] = True
    if side is not None and not trained:  # others have learned from larger images
        chosen["image_size"] = min(size.largest, max(SMALLEST, SIZE_STEP * -(-side // SIZE_STEP)))
    values = {name: value for name, value in chosen.items() if name not in given}
    return Choice(values, images, side) if values else None


def _flag(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return flag_of(name)  # which is True
    return f"{flag_of(name)} {value:g}" if isinstance(value, float) else f"{flag_of(name)} {value}"


def _rounded(rate: float) -> float:
    """Rounds a learning rate to two digits."""
    return float(f"{rate:.2g}")
