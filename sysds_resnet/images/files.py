"""What the layouts share: finding files, and labels by number or by name."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from sysds_resnet.errors import UserError

Split = Literal["train", "val"]

IMG_EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""Endings of image files in either case, so .JPEG too; torchvision's list."""

CLASSES_FILE = "classes.txt"
SPLIT_NAMES = {"train": ("train", "training"), "val": ("val", "validation", "valid", "test")}
"""What splits are called in files, most usual first."""

PATH_COLUMNS = ("path", "file", "filename", "file_name", "image_path")
LABEL_COLUMNS = ("label", "labels", "class", "target", "fine_label")


def walk_images(folder: Path) -> list[str]:
    """List image files in `folder` and below, in the order of torchvision's ImageFolder."""
    return [
        os.path.join(parent, name)
        for parent, _, names in sorted(os.walk(folder, followlinks=True))
        for name in sorted(names)
        if name.lower().endswith(IMG_EXTENSIONS)
    ]


def find_files(root: Path, split: Split, ending: str) -> list[Path]:
    """List the files of a split, sorted: SPLIT*ENDING in a folder or its data/, or all in its SPLIT/."""
    for name in SPLIT_NAMES[split]:
        for pattern in (f"{name}*{ending}", f"data/{name}*{ending}", f"{name}/*{ending}"):
            found = sorted(root.glob(pattern))
            if found:
                return found
    return []


def classes_text(classes: Iterable[str]) -> str:
    """The text of a classes.txt, which `named_classes` reads."""
    return "".join(f"{name}\n" for name in classes)


def named_classes(root: Path, number: int | None = None) -> list[str] | None:
    """Class names from classes.txt, one in a line in the order of the labels, if there is one.

    Args:
        root: folder of the data set.
        number: classes that must have a name at least.
    """
    path = root / CLASSES_FILE
    if not path.is_file():
        return None
    names = [line.strip() for line in path.read_text().splitlines() if line.strip()]
    if len(set(names)) < len(names) or (number is not None and len(names) < number):
        raise UserError(
            f"{path}: found {len(set(names))} different names in {len(names)} lines, expected one for each "
            f"of {number or len(names)} classes: correct the file"
        )
    return names


def number_labels(
    root: Path, labels: Mapping[str, pd.Series], split: Split, names: list[str] | None = None
) -> tuple[np.ndarray, list[str]]:
    """Turn labels as they stand in files into numbers from 0, and name the classes.

    Args:
        root: folder of the data set.
        labels: of each split that is there; numbers from 0, or names, whose classes are in sorted order.
        split: whose labels to give.
        names: of numbered classes, where the files tell; classes.txt goes before.
    """
    together = pd.concat(list(labels.values()))
    if pd.api.types.is_integer_dtype(together):
        if together.min() < 0:
            raise UserError(
                f"data set {root}: found label {together.min()}, expected labels from 0: correct them"
            )
        number = int(together.max()) + 1
        classes = named_classes(root, number) or names or [str(i) for i in range(number)]
        return labels[split].to_numpy(), classes
    found = sorted(together.astype(str).unique())
    classes = named_classes(root) or found
    unknown = sorted(set(found) - set(classes))
    if unknown:
        raise UserError(
            f"{root / CLASSES_FILE}: found no class {unknown[0]!r}, which is a label, expected all of them: "
            "add it"
        )
    positions = {name: i for i, name in enumerate(classes)}
    return labels[split].astype(str).map(positions).to_numpy(), classes
