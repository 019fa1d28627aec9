"""Images and labels in NumPy's files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sysds_resnet.errors import UserError, one_line
from sysds_resnet.files import open_regular
from sysds_resnet.images.files import Split
from sysds_resnet.images.labels import LabelColumn, assign_labels
from sysds_resnet.images.sources import ArraySource
from sysds_resnet.labels import one_hot_rows


def open_arrays(root: Path, split: Split) -> ArraySource:
    """Open train_images.npy, uint8 of shape (n, H, W, 3), train_labels.npy, and val's; memory-mapped.

    Labels are integers from 0, or floats of such values, of shape (n,) or (n, 1); or one-hot, of shape
    (n, K).
    """
    path = root / f"{split}_images.npy"
    images = _read_array(path)
    if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8 or not len(images):
        raise UserError(
            f"{path}: found {images.dtype} of shape {images.shape}, expected uint8 of shape (n, H, W, 3): "
            "convert it"
        )
    columns = {}
    for name in ("train", "val"):
        file = root / f"{name}_labels.npy"
        if name == split or file.exists():
            columns[name] = [_labels(file, len(images) if name == split else None)]
    own = assign_labels(root, columns, split)
    return ArraySource(images, own.labels, own.classes, str(path), own.notes)


def _labels(path: Path, number: int | None) -> LabelColumn:
    """The labels in a file; of so many images, where their number is known."""
    labels = _read_array(path)
    n = labels.shape[0] if labels.ndim and number is None else number
    if labels.shape == (n, 1):
        labels = labels[:, 0]
    elif (
        labels.ndim == 2
        and labels.shape[0] == n
        and labels.dtype.kind in "iufb"
        and labels.shape[1] > 0
        and one_hot_rows(labels).all()
    ):
        labels = labels.argmax(axis=1)
    if labels.shape != (n,) or labels.dtype.kind not in "iufbU":
        raise UserError(
            f"{path}: found {labels.dtype} of shape {labels.shape}, expected integers from 0 of shape "
            f"({'n' if n is None else n},), or one-hot rows: give one label for each image"
        )
    return LabelColumn(np.asarray(labels), lambda i: f"{path}, label {i}")


def _read_array(path: Path) -> np.ndarray:
    try:
        open_regular(path).close()
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # NumPy parses the header as Python
        raise UserError(
            f"{path}: found no readable array ({one_line(error)}), expected a .npy file: add it"
        ) from error
