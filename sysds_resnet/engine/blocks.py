"""SystemDS's binary matrices written without SystemDS, by processes that have no JVM.

A file is a Hadoop sequence file of blocks of 1000 x 1000 values. Sources:
https://github.com/apache/hadoop/blob/rel/release-3.3.6/hadoop-common-project/hadoop-common/src/main/java/org/apache/hadoop/io/SequenceFile.java,
https://github.com/apache/systemds/blob/3.4.0-rc2/src/main/java/org/apache/sysds/runtime/matrix/data/MatrixBlock.java.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np

from sysds_resnet.system.files import remove_temporary, write_whole

BLOCK_SIZE = 1000  # SystemDS's default
_PACKAGE = "org.apache.sysds.runtime.matrix.data"
_DENSE = 3  # of the kinds of blocks
_SYNC = bytes(16)  # what marks places to split a file at; these files have none


_CODEC = b"org.apache.hadoop.io.compress.DefaultCodec"  # zlib
_FASTEST = 1  # of zlib's levels


def write_matrix(file: BinaryIO, array: np.ndarray, compress: bool = False, first_row: int = 0) -> None:
    """Writes a 2-D array of numbers as doubles.

    Its size stands nowhere in the file: whoever reads it must know, from a .mtd file or otherwise.

    Args:
        file: Where to.
        array: Of any kind of numbers.
        compress: Whether to compress each block by zlib.
        first_row: Of the matrix that this is a part of, a multiple of `BLOCK_SIZE`.
    """
    file.write(b"SEQ\x06")
    for name in ("MatrixIndexes", "MatrixBlock"):
        text = f"{_PACKAGE}.{name}".encode()
        file.write(bytes([len(text)]) + text)
    file.write(bytes([compress, 0]))  # by record, and never by several of them
    if compress:
        file.write(bytes([len(_CODEC)]) + _CODEC)
    file.write(struct.pack(">i", 0) + _SYNC)  # no metadata
    for top in range(0, array.shape[0], BLOCK_SIZE):
        for left in range(0, array.shape[1], BLOCK_SIZE):
            part = array[top : top + BLOCK_SIZE, left : left + BLOCK_SIZE]
            key = struct.pack(">qq", (first_row + top) // BLOCK_SIZE + 1, left // BLOCK_SIZE + 1)
            block = struct.pack(">iib", *part.shape, _DENSE) + part.astype(">f8").tobytes()
            if compress:
                block = zlib.compress(block, _FASTEST)
            file.write(struct.pack(">ii", len(key) + len(block), len(key)) + key + block)


def save_matrix(path: Path, array: np.ndarray) -> None:
    """Writes PATH, compressed, and PATH.mtd."""
    metadata = _metadata_of_matrix(path, *array.shape, int(np.count_nonzero(array)))
    write_whole({path: partial(_save, array=array), **metadata})


def save_parts(path: Path, rows: int, columns: int, part: Callable[[int, int], np.ndarray]) -> Iterator[int]:
    """Writes a matrix that need not fit into memory, 1000 rows at a time, compressed, and PATH.mtd.

    What an interrupted call has written stays, and the next one goes on from there. The metadata comes
    last: before, it is no matrix to SystemDS.

    Args:
        path: A folder, made if it is not there.
        rows: Of the matrix.
        columns: Of the matrix.
        part: Gives rows start (from 0) to stop (exclusive), of shape (stop - start, columns).

    Yields:
        The number of rows that are written, after each part.
    """
    nonzeros = 0
    path.mkdir(parents=True, exist_ok=True)
    remove_temporary(path)  # SystemDS would read them
    for start in range(0, rows, BLOCK_SIZE):
        stop = min(start + BLOCK_SIZE, rows)
        values = part(start, stop)
        nonzeros += int(np.count_nonzero(values))
        file = path / f"part-{start // BLOCK_SIZE:06d}"
        if not file.exists():
            write_whole({file: partial(_save, array=values, first_row=start)})
        yield stop
    write_whole(_metadata_of_matrix(path, rows, columns, nonzeros))


def save_list(folder: Path, length: int) -> None:
    """Makes a folder with the matrices `list_item(FOLDER, 0)` and so on a list, by FOLDER.mtd."""
    write_whole(_metadata(folder, "list", "unknown", {"rows": length, "cols": 1}))


def list_item(folder: Path, index: int) -> Path:
    """Where the item of a list stands, from 0."""
    return folder / f"{index}_null"  # the engine's name for one without a name


def metadata_of(path: Path) -> Path:
    """Where the metadata of a matrix or a list stands."""
    return path.with_name(f"{path.name}.mtd")


def _save(path: Path, array: np.ndarray, first_row: int = 0) -> None:
    with path.open("wb") as file:
        write_matrix(file, array, compress=True, first_row=first_row)


def _metadata_of_matrix(
    path: Path, rows: int, columns: int, nonzeros: int
) -> dict[Path, Callable[[Path], int]]:
    size = {"rows": rows, "cols": columns, "rows_in_block": BLOCK_SIZE, "nnz": nonzeros}
    return _metadata(path, "matrix", "double", size)


def _metadata(path: Path, kind: str, value: str, size: dict[str, int]) -> dict[Path, Callable[[Path], int]]:
    text = json.dumps({"data_type": kind, "value_type": value, **size, "format": "binary"}, indent=1)
    return {metadata_of(path): lambda temporary: temporary.write_text(text)}
