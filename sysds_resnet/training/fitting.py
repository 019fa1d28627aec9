"""The training loop on images in arrays, for `ResNet.fit`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from sysds_resnet.batches.readers import Readers
from sysds_resnet.errors import UserError
from sysds_resnet.images import ArrayDataset
from sysds_resnet.network.arrays import check_images
from sysds_resnet.network.model import Model
from sysds_resnet.report.events import EpochEvent
from sysds_resnet.settings.command_line import build
from sysds_resnet.settings.fields import names_where
from sysds_resnet.system.similar_names import refuse_unknown
from sysds_resnet.training.class_weights import class_weights
from sysds_resnet.training.loop import evaluate_state, training_loop
from sysds_resnet.training.settings import TrainSettings
from sysds_resnet.training.start import resolve
from sysds_resnet.training.state import State
from sysds_resnet.training.steps import training_steps

if TYPE_CHECKING:
    import pandas as pd

# The groups of settings that `fit` has no use for, since the images, the model and the engine exist already
# and nothing is written to disk, by what error messages say about them.
_ELSEWHERE = {
    "of images in files": ("data", "augmentation", "broken images"),
    "of the model, which is there already": ("network",),
    "of the engine, which is there already": ("hardware", "Spark cluster"),
    "of a run folder": ("run",),
    "of the command": ("command",),
}


def settings_elsewhere() -> dict[str, str]:
    """Gives the settings of the train command that `fit` refuses, with what kind of setting each is."""
    return {
        name: kind
        for kind, groups in _ELSEWHERE.items()
        for group in groups
        for name in names_where(TrainSettings, group=group)
    }


def fit_arrays(
    model: Model,
    images: np.ndarray,
    labels: np.ndarray,
    validation: tuple[np.ndarray, np.ndarray] | None,
    on_epoch: Callable[[EpochEvent], None] | None,
    values: Mapping[str, Any],
) -> pd.DataFrame:
    """Trains a model on images in arrays, without a run folder, and gives a row for each epoch.

    The arguments are those of `ResNet.fit`, with its settings in `values`.
    """
    import pandas as pd  # not at the top: commands start sooner without it

    if model.engine.workers > 1:
        raise UserError(
            f"engine: found {model.engine.workers} GPUs or workers, expected one to train; open an engine "
            "with one, or train by the command, whose --gpus and --processes share batches among processes"
        )
    elsewhere = settings_elsewhere()
    for name, kind in elsewhere.items():
        if name in values:
            raise UserError(f"{name}: found a setting {kind}, expected those of training; leave it out")
    refuse_unknown(values, [name for name in TrainSettings.model_fields if name not in elsewhere], "fit")
    values = dict(values)
    asked = values.pop("class_weights", None)  # may be numbers here
    settings = build(TrainSettings, values)
    train_set, val_set = _dataset(model, images, labels), _validation(model, validation)
    weights = class_weights(asked, train_set)
    settings = resolve(settings, model.engine, train_set, model.network.depth)
    state = State.fresh(model, settings.optimizer)
    frozen = model.network.units_of(settings.frozen_parts)
    optimizer = settings.make_optimizer(len(train_set) // settings.batch_size, frozen, weights)
    known = [dataset for dataset in (train_set, val_set) if dataset is not None]
    with (
        Readers(known, settings.workers) as readers,
        training_steps(settings, state, train_set, readers) as steps,
    ):
        events = training_loop(
            state,
            steps,
            optimizer,
            epochs=settings.epochs,
            validate=partial(evaluate_state, state, val_set, readers),
            on_nan=settings.on_nan,
        )
        rows = []
        for event in events:
            if isinstance(event, EpochEvent):
                rows.append(asdict(event))
                if on_epoch is not None:
                    on_epoch(event)
    model.weights = state.averaged
    return pd.DataFrame(rows).apply(pd.to_numeric)  # so that None is NaN


def _dataset(model: Model, images: np.ndarray, labels: np.ndarray) -> ArrayDataset:
    classes = model.classes or [str(i) for i in range(model.network.num_classes)]
    images = check_images(images, model.network.channels)
    return ArrayDataset(images, labels, classes, mean=model.mean[0], std=model.std[0])


def _validation(model: Model, validation: object) -> ArrayDataset | None:
    if validation is None:
        return None
    if not isinstance(validation, (tuple, list)) or len(validation) != 2:
        raise UserError(
            f"validation: found {type(validation).__name__}, expected images and labels; give "
            "validation=(images, labels)"
        )
    try:
        return _dataset(model, *validation)
    except UserError as error:
        raise UserError(f"validation: {error}") from error
