"""SystemDS's binary matrices written without SystemDS, by processes that have no JVM.

A file is a Hadoop sequence file of blocks of 1000 x 1000 values. Sources:
https://github.com/apache/hadoop/blob/rel/release-3.3.6/hadoop-common-project/hadoop-common/src/main/java/org/apache/hadoop/io/SequenceFile.java,
https://github.com/apache/systemds/blob/3.4.0-rc2/src/main/java/org/apache/sysds/runtime/matrix/data/MatrixBlock.java.
"""

from __future__ import annotations

import struct
from typing import BinaryIO

import numpy as np

BLOCK_SIZE = 1000  # SystemDS's default
_PACKAGE = "org.apache.sysds.runtime.matrix.data"
_DENSE = 3  # of the kinds of blocks
_SYNC = bytes(16)  # what marks places to split a file at; these files have none


def write_matrix(file: BinaryIO, array: np.ndarray) -> None:
    """Writes a 2-D array of numbers as doubles, uncompressed.

    Its size stands nowhere in the file: whoever reads it must know, from a .mtd file or otherwise.
    """
    file.write(b"SEQ\x06")
    for name in ("MatrixIndexes", "MatrixBlock"):
        text = f"{_PACKAGE}.{name}".encode()
        file.write(bytes([len(text)]) + text)
    file.write(bytes(2))  # compressed neither by record nor by block
    file.write(struct.pack(">i", 0) + _SYNC)  # no metadata
    for top in range(0, array.shape[0], BLOCK_SIZE):
        for left in range(0, array.shape[1], BLOCK_SIZE):
            part = array[top : top + BLOCK_SIZE, left : left + BLOCK_SIZE]
            key = struct.pack(">qq", top // BLOCK_SIZE + 1, left // BLOCK_SIZE + 1)
            head = struct.pack(">iib", *part.shape, _DENSE)
            values = part.astype(">f8").tobytes()
            file.write(struct.pack(">ii", len(key) + len(head) + len(values), len(key)) + key + head)
            file.write(values)
