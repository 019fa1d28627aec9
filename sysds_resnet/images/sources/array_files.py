"""The layout with images and labels in NumPy's files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from sysds_resnet.classes.labels import one_hot_rows
from sysds_resnet.errors import UserError, one_line
from sysds_resnet.images.sources.base import ArraySource
from sysds_resnet.images.sources.files import Split, files_of_split, split_named, test_taken
from sysds_resnet.images.sources.labels import LabelColumn, assign_labels
from sysds_resnet.system.files import open_regular


def find_array(root: Path, split: Split, what: str) -> tuple[Path, bool]:
    """Gives the path of a split's "images" or "labels" file, and whether it is the test split's.

    The file need not be there. Splits may have any of the names in `SPLIT_NAMES`; the test split's file is
    taken for val where there is no other.
    """
    ending = f"_{what}.npy"
    path = next(iter(files_of_split(root, split, [ending])), root / f"{split}{ending}")
    return path, split_named(path.name[: -len(ending)]) == "test"


def open_arrays(root: Path, split: Split) -> ArraySource:
    """Opens a split of train_images.npy, train_labels.npy, and val's; the images are memory-mapped.

    Images are uint8 of shape (n, H, W, 3). Labels are integers from 0, or floats of such values, or names, of
    shape (n,) or (n, 1); or they are one-hot, of shape (n, K), where there are K classes.
    """
    path, is_test = find_array(root, split, "images")
    images = _read_array(path)
    if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8 or not images.size:
        raise UserError(
            f"{path}: found {images.dtype} of shape {images.shape}, expected uint8 of shape (n, H, W, 3): "
            f"{_conversion(images)}"
        )
    labels, widths = {}, {}
    for name in ("train", "val"):
        file, _ = find_array(root, name, "labels")
        if name == split or file.exists():
            labels[name], widths[name] = _labels(file, len(images) if name == split else None)
    columns = {name: [column] for name, column in labels.items()}
    if None not in widths.values():
        if len(set(widths.values())) > 1:
            raise UserError(
                f"data set {root}: found one-hot labels of {widths['train']} classes for train and of "
                f"{widths['val']} for val, expected as many: write both alike"
            )
        classes = [str(i) for i in range(widths[split])]
        columns = {name: [replace(column, names=classes)] for name, column in labels.items()}
    own = assign_labels(root, columns, split)
    notes = test_taken(root, path.name) if is_test else []
    return ArraySource(images, own.labels, own.classes, str(path), notes + own.notes)


def _conversion(images: np.ndarray) -> str:
    """Says how to make what was found into images."""
    if not images.size:
        return "add images"
    shape, steps = images.shape, []
    if len(shape) == 3:
        steps.append("repeat grey three times, as np.repeat(x[..., None], 3, 3) does")
    elif len(shape) == 4 and shape[3] != 3:
        if shape[1] == 3:
            steps.append("put channels last, as x.transpose(0, 2, 3, 1) does")
        elif shape[3] == 1:
            steps.append("repeat grey three times, as np.repeat(x, 3, 3) does")
        elif shape[3] == 4:
            steps.append("leave out the fourth channel, as x[..., :3] does")
    if images.dtype.kind == "f":
        steps.append("scale to 0 to 255, as (x * 255).round().astype(np.uint8) does where x is from 0 to 1")
    elif images.dtype != np.uint8:
        steps.append("convert values from 0 to 255 by astype(np.uint8)")
    return "; ".join(steps) or "convert it"


def _labels(path: Path, number: int | None) -> tuple[LabelColumn, int | None]:
    """Reads the labels in a file; gives the width of one-hot rows too, or None for other labels.

    `number` is the number of images that must have a label, where it is known.
    """
    labels = _read_array(path)
    n = labels.shape[0] if labels.ndim and number is None else number
    width = None
    if labels.shape == (n, 1):
        labels = labels[:, 0]
    elif (
        labels.ndim == 2
        and labels.shape[0] == n
        and labels.dtype.kind in "iufb"
        and labels.shape[1] > 0
        and one_hot_rows(labels).all()
    ):
        width = labels.shape[1]
        labels = labels.argmax(axis=1)
    if labels.shape != (n,) or labels.dtype.kind not in "iufbU":
        raise UserError(
            f"{path}: found {labels.dtype} of shape {labels.shape}, expected integers from 0 of shape "
            f"({'n' if n is None else n},), or one-hot rows: give one label for each image"
        )
    native = np.asarray(labels, labels.dtype.newbyteorder("="))  # pandas takes no other byte order
    return LabelColumn(native, lambda i: f"{path}, label {i}"), width


def _read_array(path: Path) -> np.ndarray:
    try:
        open_regular(path).close()
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(array, np.ndarray):
            array.close()
            raise ValueError("an archive of arrays, as .npz")
        return array
    except Exception as error:  # NumPy parses the header as Python, which may raise anything
        raise UserError(
            f"{path}: found no readable array ({one_line(error)}), expected a .npy file: add it"
        ) from error
