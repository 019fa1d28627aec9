"""The layouts of data sets on disk: which one lies at a path, and the `Source` of one split of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal, get_args

from sysds_resnet.errors import NoSuchSplit, UserError
from sysds_resnet.images.sources.array_files import find_array, open_arrays
from sysds_resnet.images.sources.base import Source
from sysds_resnet.images.sources.division import divide
from sysds_resnet.images.sources.files import Split, find_files
from sysds_resnet.images.sources.folders import find_split_folders, folders_in, open_folders
from sysds_resnet.images.sources.lists import open_lists
from sysds_resnet.images.sources.parquet import open_parquet
from sysds_resnet.images.sources.remote_shards import open_remote_shards
from sysds_resnet.images.sources.shards import is_prepared, open_shards
from sysds_resnet.images.sources.strays import stray_files
from sysds_resnet.images.sources.tables import find_table, open_table
from sysds_resnet.images.sources.tars import open_tar, trouble_with_tars
from sysds_resnet.system.files import user_path
from sysds_resnet.system.urls import is_url

Layout = Literal["shards", "lists", "arrays", "table", "parquet", "tar", "folders"]


def open_source(
    path: str | os.PathLike[str],
    split: Split,
    layout: Layout | None = None,
    val_split: float | None = None,
    split_seed: int = 0,
) -> Source:
    """Opens the images of one split of a data set.

    PATH/classes.txt, with one name in a line, names classes that would be numbered otherwise.

    Args:
        path: The data set: a folder or, for a table, a file; or the URL of prepared shards, such as
            s3a://BUCKET/FOLDER. Its layout is one of these:
            shards: what `sysds_resnet.prepare` wrote;
            lists: PATH/train_list.txt and PATH/val_list.txt with lines "relative/path label";
            arrays: PATH/train_images.npy, uint8 of shape (n, H, W, 3), PATH/train_labels.npy, and val's;
            table: PATH/train.csv and PATH/val.csv (or .tsv, .parquet), or a file with a column "split", with
                columns "path" and "label";
            parquet: files called like train-0.parquet and val-0.parquet, with image bytes, as Hugging Face
                writes them;
            tar: files called like train-0.tar and val-0.tar, by WebDataset's convention;
            folders: PATH/train/CLASS/... and PATH/val/CLASS/..., or PATH/CLASS/... for evaluation only.
            Labels are numbers from 0 or names, and mean the same in both splits.
        split: The split, "train" or "val".
        layout: The layout; None means the first one, in this order, of which there are signs.
        val_split: The share of the training images that is for validation; None means that the data set has
            validation images of its own. With a share, folders may be PATH/CLASS/..., a table needs no column
            "split", and validation images of the data set's own are not used.
        split_seed: The seed of the choice of this share, at least 0.

    Raises:
        UserError: If there is no data set, it is not as its layout says, or the two splits contradict each
            other.
    """
    if val_split is None:
        return _open(path, split, layout)
    return divide(_open(path, "train", layout, undivided=True), split, val_split, split_seed, os.fspath(path))


def _open(
    path: str | os.PathLike[str], split: Split, layout: Layout | None, undivided: bool = False
) -> Source:
    """Opens a split that the data set has itself; `undivided` if training images will give the other one."""
    if is_url(os.fspath(path)):
        if layout not in (None, "shards"):
            raise UserError(
                f"layout: found {layout} for {path}, expected shards: under URLs no other is read"
            )
        return open_remote_shards(os.fspath(path).rstrip("/"), split)
    root = user_path(path)
    if not os.path.exists(root):  # Path's own method raises an error for a name that is too long
        raise UserError(
            f"data set {root}: found nothing, expected digits, photos, synthetic, a folder or a table: check "
            "the path"
        )
    notes = []
    if layout is None:
        layout = _signs(root, split)
        other: Split = "val" if split == "train" else "train"
        if not undivided and layout != (others := _signs(root, other)):
            _check_alike(root, split, layout, other, others)
        if layout == "folders" and (tars := find_files(root, split, ".tar").files):
            notes = [f"data set {root}: images are from its folders, not from {tars[0].name}"]
    source = open_folders(root, split, undivided) if layout == "folders" else _LAYOUTS[layout][1](root, split)
    source.notes.extend(notes)
    if len(source.classes) == 1:
        source.notes.append(f"data set {root}: all images are of one class, {source.classes[0]!r}")
    if layout in ("parquet", "tar") and (others := stray_files(root, f".{layout}")):
        source.notes.append(f"data set {root}: not all its files are used{others}")
    return source


def _check_alike(root: Path, split: Split, layout: Layout, other: Split, others: Layout) -> None:
    """Refuses splits in two layouts, whose classes need not be the same, and a split that is not there."""
    folders = find_split_folders(root)[0]
    if layout == "folders" and split not in folders:
        raise NoSuchSplit(
            f"data set {root}: found {other} images ({others}) without {split}{stray_files(root)}, expected "
            f"both: add {split} images"
            + (", or give a table with a column 'split' itself as the data set" if others == "table" else "")
        )
    if others != "folders" or other in folders:
        raise UserError(
            f"data set {root}: found {split} images as {layout} and {other} images as {others}, expected one "
            "layout for both: move one of them away, or say --layout"
        )


def _has_tars(root: Path, split: Split) -> bool:
    """Tells whether there are tar files to read: beside unpacked folders, only if they are a data set."""
    if not find_files(root, split, ".tar").files:
        return False
    folders = find_split_folders(root)[0].values()
    unpacked = len(folders) == 2 and all(folders_in(folder) for folder in folders)
    return not (unpacked and trouble_with_tars(root))


def _signs(root: Path, split: Split) -> Layout:
    return next(name for name in get_args(Layout) if _LAYOUTS[name][0](root, split))


_LAYOUTS: dict[str, tuple[Callable[[Path, Split], bool], Callable[[Path, Split], Source]]] = {
    "shards": (lambda root, split: is_prepared(root), open_shards),
    "lists": (lambda root, split: (root / f"{split}_list.txt").exists(), open_lists),
    "arrays": (lambda root, split: find_array(root, split, "images")[0].exists(), open_arrays),
    "table": (lambda root, split: find_table(root, split) is not None, open_table),
    "parquet": (lambda root, split: bool(find_files(root, split, ".parquet").files), open_parquet),
    "tar": (_has_tars, open_tar),
    "folders": (lambda root, split: True, open_folders),
}
"""The test for signs of a split in each layout, and the function that opens it."""
