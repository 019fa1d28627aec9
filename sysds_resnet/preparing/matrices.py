"""The matrices of a prepared data set, in SystemDS's format, for dml/train.dml and any DML program."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from sysds_resnet.engine.blocks import list_item, metadata_of, save_list, save_matrix, save_parts
from sysds_resnet.images.sources.files import Split
from sysds_resnet.images.sources.shards import FileRecord, Manifest, ShardSource, open_shards

MATRICES = "matrices"

Blocks = Callable[[Path, Split, int, int], Iterable[int]]
"""A function that writes a split's blocks and yields their numbers.

Its arguments are the folder of the data set, the split, the images in a block, and the number of blocks.
"""


def write_matrices(root: Path, splits: tuple[Split, ...], manifest: Manifest) -> None:
    """Writes the images of each split as one matrix.

    Args:
        root: The folder of the prepared data set.
        splits: The splits to write.
        manifest: The manifest of the data set, which gets the records of the new files.
    """
    for split in splits:
        source = open_shards(root, split)
        n, values = len(source.labels), 3 * math.prod(manifest.image_size)
        with tqdm(total=n, unit="image", desc=f"{split} matrix", disable=None) as bar:
            for done in save_parts(root / MATRICES / f"{split}_X", n, values, partial(_rows, source)):
                bar.update(done - bar.n)
    _finish(root, splits, manifest)


def write_blocks(
    root: Path, splits: tuple[Split, ...], manifest: Manifest, size: int, blocks: Blocks | None = None
) -> None:
    """Writes the images of each split as a list of matrices (blocks), unless the manifest has them.

    Args:
        root: The folder of the prepared data set.
        splits: The splits to write.
        manifest: The manifest of the data set, which gets the records of the new files.
        size: The number of images in a matrix; the last one of a split may have fewer.
        blocks: The function that writes them and gives their numbers; by default this process does.
    """
    for split in splits:
        if blocks_file(split, size) in manifest.files:
            continue
        folder = blocks_folder(root, split, size)
        number = -(-len(open_shards(root, split).labels) // size)
        with tqdm(total=number, unit="matrix", desc=f"{split} matrices", disable=None) as bar:
            for _ in (blocks or _blocks)(root, split, size, number):
                bar.update()
        save_list(folder, number)
    _finish(root, splits, manifest)


def matrix_file(split: Split) -> str:
    """Gives the path below a data set's folder of the file of a split's matrix that is written last."""
    return f"{MATRICES}/{split}_X.mtd"


def blocks_file(split: Split, size: int) -> str:
    """Gives the path below a data set's folder of the file of a split's blocks that is written last."""
    return f"{MATRICES}/{split}_X_by_{size}.mtd"


def blocks_folder(root: Path, split: Split, size: int) -> Path:
    """Gives the folder of the list of a split's blocks."""
    return (root / blocks_file(split, size)).with_suffix("")


def write_block(source: ShardSource, folder: Path, size: int, number: int) -> int:
    """Writes one block, unless it is there, and gives its number."""
    path = list_item(folder, number)
    if not metadata_of(path).exists():
        save_matrix(path, _rows(source, number * size, min((number + 1) * size, len(source.labels))))
    return number


def _blocks(root: Path, split: Split, size: int, number: int) -> Iterator[int]:
    source = open_shards(root, split)
    return map(partial(write_block, source, blocks_folder(root, split, size), size), range(number))


def _finish(root: Path, splits: tuple[Split, ...], manifest: Manifest) -> None:
    """Writes labels, mean and standard deviation, and adds the records of all files that are there."""
    folder = root / MATRICES
    for split in splits:
        save_matrix(folder / f"{split}_Y", open_shards(root, split).labels.reshape(-1, 1) + 1)
    save_matrix(folder / "mean_std", np.array([manifest.mean, manifest.std]))
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_file() and not path.name.startswith((".", "_")) and name not in manifest.files:
            manifest.files[name] = FileRecord.of(path)


def _rows(source: ShardSource, start: int, stop: int) -> np.ndarray:
    """Gives images as rows of a matrix, channel by channel."""
    images = np.stack([source.read(index) for index in range(start, stop)])
    return images.transpose(0, 3, 1, 2).reshape(stop - start, -1)
