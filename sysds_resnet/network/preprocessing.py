"""The checks of what a model knows of its images and classes: mean, standard deviation and class names."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import ValidationError

from sysds_resnet.classes.file import is_text
from sysds_resnet.errors import UserError, one_line
from sysds_resnet.imagenet import IMAGENET_MEAN, IMAGENET_STD
from sysds_resnet.network.weights.metadata import Metadata, check_fits, check_metadata
from sysds_resnet.system.checks import as_array

_OF_A_MODEL = ("mean", "std", "classes")  # the part of the metadata of weights that a model uses


def check_preprocessing(
    mean: object, std: object, classes: object, channels: int, num_classes: int
) -> tuple[np.ndarray, np.ndarray, list[str] | None]:
    """Gives mean, standard deviation and class names, checked by `check_normalization` and `check_names`."""
    return *check_normalization(mean, std, channels), check_names(classes, num_classes)


def check_normalization(
    mean: Sequence[float] | np.ndarray | None, std: Sequence[float] | np.ndarray | None, channels: int
) -> tuple[np.ndarray, np.ndarray]:
    """Gives the checked mean and standard deviation of the images, as float64 of shape (1, channels).

    Args:
        mean, std: The mean and standard deviation of each channel, on the scale of the pixels. If both are
            None, they are ImageNet's for three channels, and 0 and 1 for another number.
        channels: The number of channels of the images.

    Raises:
        UserError: If only one of the two is given, or a value is not finite, or outside the limits of
            `Metadata`, with which files of weights are read.
    """
    if (mean is None) != (std is None):
        given, missing = ("mean", "std") if std is None else ("std", "mean")
        raise UserError(f"{missing}: found none beside {given}, expected both or neither; give both")
    if mean is None and channels == len(IMAGENET_MEAN):
        mean, std = IMAGENET_MEAN, IMAGENET_STD
    if mean is None:
        mean, std = np.zeros(channels), np.ones(channels)
    mean, std = _per_channel("mean", mean, channels), _per_channel("std", std, channels)
    try:
        Metadata(mean=mean[0].tolist(), std=std[0].tolist())
    except ValidationError as error:
        first = error.errors()[0]
        limit = first["msg"].removeprefix("Input should be ")
        raise UserError(
            f"{first['loc'][0]}: found {first['input']:g}, expected a number {limit}; correct it"
        ) from error
    return mean, std


def _per_channel(name: str, values: Sequence[float] | np.ndarray, channels: int) -> np.ndarray:
    array = as_array(name, values)
    if array.shape not in ((channels,), (1, channels)) or array.dtype.kind not in "iuf":
        raise UserError(
            f"{name}: found {array.dtype} of shape {array.shape}, expected {channels} numbers, one for each "
            "channel; give them"
        )
    if not np.isfinite(array).all():
        raise UserError(f"{name}: found {array.reshape(-1).tolist()}, expected finite numbers; correct it")
    return array.reshape(1, channels).astype(float)


def check_names(classes: Sequence[str] | None, num_classes: int) -> list[str] | None:
    """Checks the names of the classes, and gives them as a list; None if there are none.

    Raises:
        UserError: If there are more or fewer names than classes, one is no text, is empty or cannot be
            written as UTF-8, or two are the same.
    """
    if classes is None or (hasattr(classes, "__len__") and len(classes) == 0):
        return None
    names = None if isinstance(classes, str) else np.asarray(classes, dtype=object).reshape(-1).tolist()
    if names is None or not all(isinstance(name, str) for name in names):
        raise UserError(f"classes: found {classes!r:.80}, expected a list of names; give one for each class")
    if len(names) != num_classes:
        raise UserError(
            f"classes: found {len(names)} names, expected {num_classes}, as num_classes says; give one for "
            "each class"
        )
    first: dict[str, int] = {}
    for i, name in enumerate(names):
        if not name or not is_text(name):
            raise UserError(f"classes: found {name!r} for class {i}, expected text in UTF-8; rename it")
        if first.setdefault(name, i) != i:
            raise UserError(
                f"classes: found {name!r} for classes {first[name]} and {i}, expected others; rename one"
            )
    return [str(name) for name in names]


def of_a_model(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Picks the arguments for a model from the metadata of weights, which may hold more."""
    return {name: metadata[name] for name in _OF_A_MODEL if name in metadata}


def check_description(description: Mapping[str, Any], channels: int, num_classes: int) -> dict[str, Any]:
    """Checks metadata that is to be written beside weights, and gives it in Python's own types.

    The checks are those of reading, so that nothing is written that could not be read.

    Args:
        description: The metadata by name. NumPy's numbers and arrays become Python's.
        channels, num_classes: The numbers of channels and classes of the network.

    Raises:
        UserError: If JSON has no form for a value, or a field is not what it should be.
    """
    plain = {name: _in_json(name, value) for name, value in description.items()}
    checked = check_metadata(plain, "metadata")
    check_fits(checked, channels, num_classes, "metadata")
    return checked


def _in_json(name: str, value: object) -> Any:
    """Gives a value as it would come back from JSON."""
    try:
        return json.loads(json.dumps(value, default=_of_numpy, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(
            f"{name}: found {value!r:.80}, which JSON does not take ({one_line(error)}), expected finite "
            "numbers, text, truth values, lists or dicts of these; convert it"
        ) from error


def _of_numpy(value: object) -> Any:
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    raise TypeError(f"a {type(value).__name__} has no form in it")
