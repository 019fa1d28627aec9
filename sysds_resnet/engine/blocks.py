"""Writers of SystemDS's binary matrices that need neither SystemDS nor a JVM.

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
_DENSE = 3  # SystemDS's number for a dense block
_SYNC = bytes(16)  # the marker of places where Hadoop may split a file; these files have no such places


_CODEC = b"org.apache.hadoop.io.compress.DefaultCodec"  # zlib
_FASTEST = 1  # zlib's fastest level of compression


def write_matrix(file: BinaryIO, array: np.ndarray, first_row: int = 0) -> None:
    """Writes a 2-D array of numbers as doubles, in blocks that are compressed by zlib.

    The file does not contain the size of the matrix: a reader must know it, from a .mtd file or otherwise.

    Args:
        file: The binary file to write to.
        array: The matrix, or a part of it, of any numeric type.
        first_row: The row, from 0, at which this part starts in the whole matrix; a multiple of `BLOCK_SIZE`.
    """
    file.write(b"SEQ\x06")
    for name in ("MatrixIndexes", "MatrixBlock"):
        text = f"{_PACKAGE}.{name}".encode()
        file.write(bytes([len(text)]) + text)
    file.write(bytes([True, False]))  # compression of single records, and never of several together
    file.write(bytes([len(_CODEC)]) + _CODEC)
    file.write(struct.pack(">i", 0) + _SYNC)  # no metadata
    for top in range(0, array.shape[0], BLOCK_SIZE):
        for left in range(0, array.shape[1], BLOCK_SIZE):
            part = array[top : top + BLOCK_SIZE, left : left + BLOCK_SIZE]
            key = struct.pack(">qq", (first_row + top) // BLOCK_SIZE + 1, left // BLOCK_SIZE + 1)
            block = struct.pack(">iib", *part.shape, _DENSE) + part.astype(">f8").tobytes()
            block = zlib.compress(block, _FASTEST)
            file.write(struct.pack(">ii", len(key) + len(block), len(key)) + key + block)


def save_matrix(path: Path, array: np.ndarray) -> None:
    """Writes a 2-D array as a compressed matrix to the file PATH, and its metadata to PATH.mtd."""
    metadata = _metadata_of_matrix(path, *array.shape, int(np.count_nonzero(array)))
    write_whole({path: partial(_save, array=array), **metadata})


def save_parts(path: Path, rows: int, columns: int, part: Callable[[int, int], np.ndarray]) -> Iterator[int]:
    """Writes a matrix that need not fit into memory, 1000 rows at a time, compressed, and PATH.mtd.

    What an interrupted call has written stays, and the next call writes only the parts that are missing. The
    metadata is written last: until then, SystemDS does not take the folder for a matrix.

    Args:
        path: The folder for the parts, made if it does not exist.
        rows: The number of rows of the matrix.
        columns: The number of columns of the matrix.
        part: A function that gives rows start (from 0) to stop (exclusive), of shape (stop - start, columns).

    Yields:
        The number of rows that have been written so far, after each part.
    """
    nonzeros = 0
    path.mkdir(parents=True, exist_ok=True)
    remove_temporary(path)  # SystemDS would read them as parts
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
    """Makes a list of the matrices that a folder has under the names of `list_item`, by FOLDER.mtd."""
    write_whole(_metadata(folder, "list", "unknown", {"rows": length, "cols": 1}))


def list_item(folder: Path, index: int) -> Path:
    """Gives the path of an item of a list; `index` counts from 0."""
    return folder / f"{index}_null"  # SystemDS's file name for an item without a name


def metadata_of(path: Path) -> Path:
    """Gives the path of the metadata of a matrix or a list."""
    return path.with_name(f"{path.name}.mtd")


def _save(path: Path, array: np.ndarray, first_row: int = 0) -> None:
    with path.open("wb") as file:
        write_matrix(file, array, first_row)


def _metadata_of_matrix(
    path: Path, rows: int, columns: int, nonzeros: int
) -> dict[Path, Callable[[Path], int]]:
    size = {"rows": rows, "cols": columns, "rows_in_block": BLOCK_SIZE, "nnz": nonzeros}
    return _metadata(path, "matrix", "double", size)


def _metadata(path: Path, kind: str, value: str, size: dict[str, int]) -> dict[Path, Callable[[Path], int]]:
    text = json.dumps({"data_type": kind, "value_type": value, **size, "format": "binary"}, indent=1)
    return {metadata_of(path): lambda temporary: temporary.write_text(text)}
