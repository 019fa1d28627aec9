"""Image folders, lists of their files, and arrays in them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from sysds_resnet.errors import NoSuchSplit, UserError, one_line
from sysds_resnet.images.files import IMG_EXTENSIONS, Split, named_classes, walk_images
from sysds_resnet.images.sources import ArraySource, FileSource

_LAYOUT = "train/CLASS/*.jpg and val/CLASS/*.jpg"


def open_folders(root: Path, split: Split) -> FileSource:
    """Open PATH/train/CLASS/... and PATH/val/CLASS/..., or PATH/CLASS/..., which is for evaluation only.

    Classes and order of files are those of torchvision's ImageFolder.
    """
    if not root.is_dir():
        raise UserError(f"data set {root}: found a file, expected a folder with {_LAYOUT}: check the path")
    present = [name for name in ("train", "val") if (root / name).is_dir()]
    if not present and split == "train":
        raise NoSuchSplit(
            f"data set {root}: found no train/ to train on, expected {_LAYOUT}: rearrange the folder"
        )
    if present and split not in present:
        raise NoSuchSplit(
            f"data set {root}: found {present[0]}/ without {split}/, expected {_LAYOUT}: add {root / split}"
        )
    if len(present) == 2:
        _check_same_classes(root, _class_folders(root / "train"), _class_folders(root / "val"))
    folder = root / split if present else root
    classes = _class_folders(folder)
    files: list[str] = []
    counts = []
    for name in classes:
        in_class = walk_images(folder / name)
        if not in_class:
            raise UserError(
                f"class {folder / name}: found no image file, expected some ending in "
                f"{' '.join(IMG_EXTENSIONS)}: add images or remove the folder"
            )
        files += in_class
        counts.append(len(in_class))
    return FileSource(files, np.repeat(np.arange(len(classes)), counts), classes, root)


def _class_folders(folder: Path) -> list[str]:
    """List the sub-folders by name in sorted order, at least one."""
    try:
        with os.scandir(folder) as entries:
            classes = sorted(entry.name for entry in entries if entry.is_dir())
    except OSError as error:
        raise UserError(
            f"folder {folder}: found {one_line(error)}, expected a readable folder: fix it"
        ) from error
    if not classes:
        raise UserError(
            f"folder {folder}: found no sub-folders, expected one sub-folder of images for each class: "
            "sort the images into folders named by class"
        )
    return classes


def _check_same_classes(root: Path, train: list[str], val: list[str]) -> None:
    """Refuse classes that only one split has: labels are positions, so every label after one would be off."""
    for here, there, missing in (
        ("train", "val", set(train) - set(val)),
        ("val", "train", set(val) - set(train)),
    ):
        if missing:
            raise UserError(
                f"data set {root}: found {len(missing)} classes in {here}/ that {there}/ lacks (first: "
                f"{min(missing)}), expected the same sub-folders in both: add or remove the folders"
            )


def open_lists(root: Path, split: Split) -> FileSource:
    """Open train_list.txt and val_list.txt with lines "path label", paths relative to PATH or to PATH/train.

    Classes are called as in classes.txt, else by the folder in which all images of a class lie, else by their
    numbers.
    """
    listed = {name: _read_list(root / f"{name}_list.txt") for name in ("train", "val")}
    listed = {name: part for name, part in listed.items() if part is not None}
    if split not in listed:
        raise NoSuchSplit(
            f"data set {root}: found no {split}_list.txt, expected lines 'relative/path label' in it: add it"
        )
    paths, labels = listed[split]
    below = not (root / paths[0]).exists() and (root / split / paths[0]).exists()
    folder = root / split if below else root
    number = 1 + max(int(part[1].max()) for part in listed.values())
    classes = (
        named_classes(root, number) or _common_folders(listed, number) or [str(i) for i in range(number)]
    )
    return FileSource([os.path.join(folder, name) for name in paths], labels, classes, root)


def _read_list(path: Path) -> tuple[list[str], np.ndarray] | None:
    """Paths and labels of a list, or None if there is no such file."""
    if not path.is_file():
        return None
    paths, labels = [], []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        name, _, label = line.strip().rpartition(" ")
        if not line.strip():
            continue
        if not name or not label.isdecimal():
            raise UserError(
                f"{path}, line {number}: found {line[:80]!r}, expected 'relative/path label' with a label "
                "from 0: correct the line"
            )
        paths.append(name.rstrip())
        labels.append(int(label))
    if not paths:
        raise UserError(f"{path}: found no lines, expected 'relative/path label': fill the list")
    return paths, np.array(labels)


def _common_folders(listed: dict[str, tuple[list[str], np.ndarray]], number: int) -> list[str] | None:
    """The folder of each class's images, if each class has one of its own."""
    names: dict[int, str] = {}
    for paths, labels in listed.values():
        folders = {
            (label, Path(path).parent.name) for path, label in zip(paths, labels.tolist(), strict=True)
        }
        if not len(folders) == len({label for label, _ in folders}) == len({name for _, name in folders}):
            continue  # such as a flat val/
        names.update(folders)
    classes = [names.get(i, "") for i in range(number)]
    return classes if all(classes) and len(set(classes)) == number else None


def open_arrays(root: Path, split: Split) -> ArraySource:
    """Open train_images.npy, uint8 of shape (n, H, W, 3), train_labels.npy, and val's; memory-mapped."""
    path = root / f"{split}_images.npy"
    images, labels = (_read_array(root / f"{split}_{name}.npy") for name in ("images", "labels"))
    if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8 or not len(images):
        raise UserError(
            f"{path}: found {images.dtype} of shape {images.shape}, expected uint8 of shape (n, H, W, 3): "
            "convert it"
        )
    if labels.shape != (len(images),) or labels.dtype.kind not in "iu" or labels.min() < 0:
        raise UserError(
            f"{root / f'{split}_labels.npy'}: found {labels.dtype} of shape {labels.shape}, expected "
            f"integers from 0 of shape ({len(images)},): give one for each image"
        )
    other = root / f"{'val' if split == 'train' else 'train'}_labels.npy"
    number = 1 + max(int(labels.max()), int(_read_array(other).max()) if other.is_file() else 0)
    classes = named_classes(root, number) or [str(i) for i in range(number)]
    return ArraySource(images, labels, classes, str(path))


def _read_array(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(
            f"{path}: found no readable array ({one_line(error)}), expected a .npy file: add it"
        ) from error
