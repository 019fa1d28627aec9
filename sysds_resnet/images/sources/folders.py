"""The layout with folders of images, one for each class."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

import numpy as np

from sysds_resnet.classes.file import CLASSES_FILE, alike, check_class_names, first_of, notes_on
from sysds_resnet.errors import NoSuchSplit, Undivided, UserError
from sysds_resnet.images.sources.base import FileSource
from sysds_resnet.images.sources.files import (
    IMG_EXTENSIONS,
    Split,
    entries,
    split_folders,
    split_named,
    test_taken,
    test_unused,
)
from sysds_resnet.images.sources.strays import stray_files
from sysds_resnet.images.sources.tools import is_tool, kind_of_tool
from sysds_resnet.images.sources.walk import LeftOut, Walk

_LAYOUT = "train/CLASS/*.jpg and val/CLASS/*.jpg"


def open_folders(root: Path, split: Split, undivided: bool = False) -> FileSource:
    """Opens a split of PATH/train/CLASS/... and PATH/val/CLASS/..., or PATH/CLASS/... for evaluation only.

    With `undivided`, the images in PATH/CLASS/... may also be opened as the training split, to be divided.

    The classes and the order of the files are those of torchvision's ImageFolder, except that files and
    folders of tools are left out. The classes are those of the training split, if there is one: some of them
    may lack validation images, but validation images of another class are an error.
    """
    if not root.is_dir():
        raise UserError(f"data set {root}: found a file, expected a folder with {_LAYOUT}: check the path")
    folders, notes = find_split_folders(root)
    if not folders and split == "train" and not undivided:
        _check_level(root, folders_in(root))
        raise Undivided(
            f"data set {root}: found no train/ to train on{stray_files(root)}, expected {_LAYOUT}: rearrange "
            "the folder, or have a share of its images taken for validation with --val-split 0.1"
        )
    if folders and split not in folders:
        there = next(iter(folders.values())).name
        raise NoSuchSplit(
            f"data set {root}: found {there}/ without {split}/, expected {_LAYOUT}: add {root / split}"
        )
    folder = folders.get(split, root)
    left_out = LeftOut()
    own = _class_folders(folder, left_out)
    classes = _class_folders(folders["train"]) if "train" in folders else own
    check_class_names(classes, folder)
    _check_level(folder, own)
    images, walk = _images(folder, own, folders.values())
    if split == "train":
        _check_all_have_images(folder, images, walk, folders.get("val"))
        if "val" in folders:
            val_images, val_walk = _images(folders["val"], _class_folders(folders["val"]), folders.values())
            _check_trained(folders, classes, val_images)
            if both := walk.also_in(val_walk):
                notes.append(
                    f"data set {root}: {len(both)} training images are validation images too, by links, the "
                    f"first: {both[0]}"
                )
    else:
        if not any(images.values()):
            raise _no_images(
                folder, f"found no image file in {len(own)} folders{stray_files(root)}", "add images"
            )
        if "train" in folders:
            _check_trained(folders, classes, images)
        notes += notes_on(root, classes, {"validation images": [c for c in classes if not images.get(c)]})
    files = [path for name in classes for path in images.get(name, [])]
    labels = np.repeat(np.arange(len(classes)), [len(images.get(name, [])) for name in classes])
    notes += left_out.notes(f"{folder}") + walk.left_out.notes(f"{folder}/*")
    if walk.shared:
        notes.append(
            f"{folder}: {len(walk.shared)} links lead to images of another class, the first: {walk.shared[0]}"
        )
    if split == "train":
        notes += notes_on(root, classes, {})
    return FileSource(files, labels, classes, root, notes)


def find_split_folders(root: Path) -> tuple[dict[Split, Path], list[str]]:
    """Finds the folders of the splits, in any case of their names, and gives notes on those not used."""
    found = {name: split_folders(root, name) for name in ("train", "val", "test")}
    folders: dict[Split, Path] = {name: found[name][0] for name in ("train", "val") if found[name]}
    notes = [
        f"data set {root}: {name} images are from {folder.name}/; not used, though called alike: "
        f"{first_of([f'{path.name}/' for path in found[name][1:]])}"
        for name, folder in folders.items()
        if found[name][1:]
    ]
    test = next(iter(found["test"]), None)
    if test is None or not folders_in(test):
        return folders, notes  # no test split, or one without classes, as competitions have
    if "val" in folders:
        return folders, notes + test_unused(root, f"{test.name}/")
    if "train" in folders or all(split_named(name) for name in _class_folders(root)):
        return {**folders, "val": test}, notes + test_taken(root, f"{test.name}/")
    return folders, notes


def folders_in(folder: Path) -> list[str]:
    """Lists the names of the folders in `folder`, sorted, without those of tools."""
    return [name for name in entries(folder) if os.path.isdir(folder / name) and not is_tool(name)]


def _class_folders(folder: Path, left_out: LeftOut | None = None) -> list[str]:
    """Lists the names of the sub-folders, at least one, sorted, without those of tools."""
    left_out = LeftOut() if left_out is None else left_out
    classes = []
    above = os.path.realpath(folder)
    for name in entries(folder):
        path = os.path.join(folder, name)
        if is_tool(name):
            left_out.tools[kind_of_tool(name)] += 1
        elif os.path.isdir(path):
            if os.path.islink(path) and os.path.commonpath([above, real := os.path.realpath(path)]) == real:
                left_out.links.append(path)  # leads back up to a folder around this one
            else:
                classes.append(name)
        elif not os.path.exists(path):
            left_out.broken.append(path)
        elif name.lower().endswith(IMG_EXTENSIONS):
            left_out.images.append(path)
        elif name != CLASSES_FILE:
            left_out.file(name)
    if not classes:
        raise UserError(
            f"folder {folder}: found no sub-folders{stray_files(folder)}, expected one sub-folder of images "
            "for each class: sort the images into folders named by class"
        )
    return classes


def _check_level(folder: Path, classes: list[str]) -> None:
    """Refuses folders called like splits where classes are expected: the data set lies one level lower."""
    if len(classes) == 1:
        folder = folder / classes[0]
        classes = folders_in(folder)
    splits = {split_named(name) for name in classes}
    if len(splits) > 1 and None not in splits:
        raise UserError(
            f"folder {folder}: found folders called like splits ({first_of(classes)}), expected those of "
            f"classes, as in {_LAYOUT}: give {folder} itself as the data set"
        )


def _images(folder: Path, classes: list[str], splits: Collection[Path]) -> tuple[dict[str, list[str]], Walk]:
    """Lists the images of each class, and gives the walk that found them, with what else it found."""
    around = [folder, *Path(os.path.realpath(folder)).parents, *splits, *(path.parent for path in splits)]
    walk = Walk([os.path.join(folder, name) for name in classes], around)
    return dict(zip(classes, walk.images, strict=True)), walk


def _no_images(where: Path, found: str, mend: str) -> UserError:
    return UserError(f"class {where}: {found}, expected some ending in {' '.join(IMG_EXTENSIONS)}: {mend}")


def _check_all_have_images(folder: Path, images: dict[str, list[str]], walk: Walk, val: Path | None) -> None:
    """Refuses a training class without images: no network could learn it, and it may be a mistake."""
    empty = next((name for name, paths in images.items() if not paths), None)
    if empty is None:
        return
    found = "found no image file"
    if str(folder / empty) in walk.left_out.links:
        found = "found a link to the folder of another class, and no image file of its own"
    too = f", and {val / empty} too" if val and (val / empty).exists() else ""
    raise _no_images(folder / empty, found, f"add images or remove the folder{too}")


def _check_trained(folders: dict[Split, Path], classes: list[str], images: dict[str, list[str]]) -> None:
    """Refuses validation images of a class that training lacks, as training's classes give the labels."""
    known = set(classes)
    others = [name for name, paths in images.items() if paths and name not in known]
    if not others:
        return
    train, val = folders["train"], folders["val"]
    other = alike(others[0], classes)
    hint = f"; {train.name}/ has {other!r}" if other else ""
    raise UserError(
        f"data set {train.parent}: found images of {len(others)} classes in {val.name}/ that {train.name}/ "
        f"lacks (first: {others[0]!r}{hint}), expected training images of every class: add "
        f"{train / others[0]} or remove {val / others[0]}"
    )
