"""What a model knows of its images and classes: mean, standard deviation, names."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sysds_resnet.checks import as_array
from sysds_resnet.errors import UserError
from sysds_resnet.images import IMAGENET_MEAN, IMAGENET_STD


def check_normalization(
    mean: Sequence[float] | np.ndarray | None, std: Sequence[float] | np.ndarray | None, channels: int
) -> tuple[np.ndarray, np.ndarray]:
    """What images are normalized with: mean and standard deviation, float64 of shape (1, channels).

    Args:
        mean, std: Of each channel, on the scale of the pixels. Of neither, ImageNet's for three channels, and
            none (0 and 1) for another number.
        channels: Of the network.

    Raises:
        UserError: If there is one without the other, or a value is not finite, or a deviation not above 0.
    """
    if (mean is None) != (std is None):
        given, missing = ("mean", "std") if std is None else ("std", "mean")
        raise UserError(f"{missing}: found none beside {given}, expected both or neither; give both")
    if mean is None and channels == len(IMAGENET_MEAN):
        mean, std = IMAGENET_MEAN, IMAGENET_STD
    if mean is None:
        mean, std = np.zeros(channels), np.ones(channels)
    mean, std = _per_channel("mean", mean, channels), _per_channel("std", std, channels)
    if not (std > 0).all():
        raise UserError(f"std: found {std.min():g}, expected numbers above 0; correct it")
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
    """Names of the classes, as many as there are classes; none for none.

    Raises:
        UserError: If there are more or fewer of them, or one is no text.
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
    return [str(name) for name in names]


def check_unique(names: Sequence[str] | None) -> None:
    """Checks that no two classes have the same name, as some of ImageNet's have in files of weights.

    Raises:
        UserError: If two have.
    """
    first: dict[str, int] = {}
    for i, name in enumerate(names or ()):
        if first.setdefault(name, i) != i:
            raise UserError(
                f"classes: found {name!r} for classes {first[name]} and {i}, expected others; rename one"
            )
