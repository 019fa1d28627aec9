"""The labels of a batch: the forms that people give them in, and the labels of mixed images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sysds_resnet.errors import UserError
from sysds_resnet.system.checks import as_array


@dataclass(frozen=True, eq=False)
class MixedLabels:
    """The labels of N images each of which was mixed with another one (mixup, CutMix).

    Attributes:
        own: The class of the image itself, from 0, int64 of shape (N,).
        other: The class of the image that it was mixed with, int64 of shape (N,).
        share: The share of the loss that is for `own`, from 0 to 1, float64 of shape (N,).
    """

    own: np.ndarray
    other: np.ndarray
    share: np.ndarray

    def __len__(self) -> int:
        """Gives the number of images."""
        return len(self.own)

    def __getitem__(self, part: slice) -> MixedLabels:
        """Gives the labels of some of the images."""
        return MixedLabels(self.own[part], self.other[part], self.share[part])


def class_labels(labels: object, n: int, num_classes: int) -> np.ndarray:
    """Converts labels to class numbers from 0, int64 of shape (n,).

    Args:
        labels: Whole numbers from 0 of shape (n,) or (n, 1), in an array, a list, a Series or a tensor;
            truth values, for two classes; or one-hot rows of shape (n, num_classes), with a 1 for the image's
            class and 0 for all others.
        n: The number of images.
        num_classes: The number of classes.

    Raises:
        UserError: If the labels are something else, such as shares of several classes (soft labels).
    """
    array = as_array("labels", labels)
    if array.dtype == object:  # such as an array of Python's own whole numbers
        array = as_array("labels", array.tolist())
    described = f"{array.dtype} of shape {array.shape}"
    fits = array.shape in ((n,), (n, 1), (n, num_classes))
    if not fits or array.dtype.kind not in "biuf":
        raise UserError(
            f"labels: found {described}, expected integers of shape ({n},); give one for each image, its "
            f"class from 0 to {num_classes - 1}"
        )
    if array.shape == (n, num_classes):
        return _from_one_hot(array, described)
    array = array.reshape(n)
    if array.dtype == bool and num_classes != 2:
        raise UserError(
            f"labels: found {described}, expected integers of shape ({n},); truth values tell two classes "
            f"apart, not {num_classes}"
        )
    whole = array if array.dtype.kind in "iu" else np.trunc(array)
    wrong = np.flatnonzero(~((array >= 0) & (array < num_classes) & (array == whole)))
    if wrong.size:
        from_one = array.dtype.kind in "iu" and array.min() == 1 and array.max() == num_classes
        advice = "subtract 1 from all, if they count from 1" if from_one else "correct them"
        raise UserError(
            f"labels: found {array[wrong[0]]:g} at position {wrong[0]}, expected whole numbers from 0 to "
            f"{num_classes - 1}; {advice}, or the number of classes"
        )
    return array.astype(np.int64)


def one_hot_rows(array: np.ndarray) -> np.ndarray:
    """Tells which rows of an array (n, K) hold a single 1 and 0 elsewhere, as truth values of shape (n,)."""
    return ((array == 0) | (array == 1)).all(axis=1) & (array.sum(axis=1) == 1)


def _from_one_hot(array: np.ndarray, described: str) -> np.ndarray:
    one_hot = one_hot_rows(array)
    if not one_hot.all():
        row = int(np.argmin(one_hot))
        raise UserError(
            f"labels: found {described} whose row {row} is not one-hot, expected a single 1 in each and 0 "
            "elsewhere; give one class for each image, as shares of several classes are not trained on"
        )
    return array.argmax(axis=1).astype(np.int64)
