"""The weights of the classes in the loss, for data sets whose classes are uneven."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sysds_resnet.errors import UserError
from sysds_resnet.images import Dataset
from sysds_resnet.settings.yaml_files import read_yaml
from sysds_resnet.system.checks import as_array
from sysds_resnet.system.similar_names import did_you_mean

BALANCED = "balanced"


def class_weights(asked: str | Sequence[float] | None, dataset: Dataset) -> tuple[float, ...]:
    """Gives the weight of each class of a data set; empty if all count alike.

    Args:
        asked: "balanced" for n / (classes * images of the class), as scikit-learn has it; the path of a YAML
            file with a weight for the name of each class; the weights themselves, of shape (num_classes,); or
            None.
        dataset: The training images.

    Raises:
        UserError: If there is not a finite number of at least 0 for each class and for no other.
    """
    if asked is None:
        return ()
    if not isinstance(asked, str):
        return _checked(asked, dataset.num_classes)
    if asked == BALANCED:
        counts = np.bincount(dataset.labels, minlength=dataset.num_classes)
        known = np.maximum(counts, 1)  # a class without images has a weight that is never used
        return tuple((len(dataset) / (np.count_nonzero(counts) * known)).tolist())
    values = read_yaml(Path(asked))
    if unknown := [name for name in values if name not in dataset.classes]:
        raise UserError(
            f"{asked}: found a weight for {unknown[0]}, expected classes of the data set"
            f"{did_you_mean(unknown[0], dataset.classes)}"
        )
    if missing := [name for name in dataset.classes if name not in values]:
        raise UserError(f"{asked}: found no weight for {missing[0]}, expected one for each class; add it")
    return tuple(_weight(asked, name, values) for name in dataset.classes)


def _checked(weights: object, num_classes: int) -> tuple[float, ...]:
    array = as_array("class_weights", weights)
    if array.shape != (num_classes,) or array.dtype.kind not in "iuf":
        raise UserError(
            f"class_weights: found {array.dtype} of shape {array.shape}, expected {num_classes} numbers, one "
            "for each class; give them"
        )
    if not (np.isfinite(array) & (array >= 0)).all():
        raise UserError(
            f"class_weights: found {array.tolist()!s:.80}, expected finite numbers of at least 0; correct it"
        )
    return tuple(array.astype(float).tolist())


def _weight(path: str, name: str, values: Mapping[str, Any]) -> float:
    value = values[name]
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not (number and math.isfinite(value) and value >= 0):
        raise UserError(
            f"{path}: found the weight {value} for {name}, expected a finite number of at least 0"
        )
    return float(value)
