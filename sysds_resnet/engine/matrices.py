"""SystemDS's binary matrices in files."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
from py4j.java_gateway import JavaObject, JVMView

from sysds_resnet.engine.blocks import BLOCK_SIZE
from sysds_resnet.engine.transfer import Transfer, uncycle
from sysds_resnet.errors import UserError


class MatrixFiles:
    """Reads and writes binary matrices: PATH, a file or a folder of parts, and its metadata PATH.mtd.

    Args:
        jvm: Of the engine.
        transfer: To and from it.
        errors: What turns the engine's errors into Python's.
    """

    def __init__(
        self, jvm: JVMView, transfer: Transfer, errors: Callable[[], AbstractContextManager[None]]
    ) -> None:
        self._jvm = jvm
        self._transfer = transfer
        self._errors = errors

    def write(self, path: Path, array: np.ndarray) -> None:
        """Writes a 2-D array of numbers."""
        with self._errors():
            block = self._transfer.send(array)
            size = self._size(*array.shape, block.getNonZeros())
            converter = self._jvm.org.apache.sysds.runtime.util.DataConverter
            # the JVM has another working directory
            converter.writeMatrixToHDFS(block, str(path.resolve()), self._binary, size)
            self._write_metadata(path, size)

    def write_parts(
        self, path: Path, rows: int, columns: int, part: Callable[[int, int], np.ndarray]
    ) -> Iterator[int]:
        """Writes a matrix that need not fit into memory, 1000 rows at a time, and compressed by zlib.

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
        path.mkdir(parents=True, exist_ok=True)
        nonzeros = 0
        for start in range(0, rows, BLOCK_SIZE):
            stop = min(start + BLOCK_SIZE, rows)
            values = part(start, stop)
            nonzeros += np.count_nonzero(values)
            file = path / f"part-{start // BLOCK_SIZE:06d}"
            if not file.exists():
                unfinished = path / f"_{file.name}"  # SystemDS and Hadoop pass over such names
                with self._errors():
                    self._write_part(unfinished, start // BLOCK_SIZE, values)
                with unfinished.open("rb") as written:
                    os.fsync(written.fileno())
                os.replace(unfinished, file)
            yield stop
        with self._errors():
            self._write_metadata(path, self._size(rows, columns, int(nonzeros)))

    def read(self, path: Path) -> np.ndarray:
        """Reads a matrix, whose size its metadata tells.

        Raises:
            UserError: If either is missing or damaged.
        """
        try:
            described = json.loads(Path(f"{path}.mtd").read_text())
            size = [int(described[name]) for name in ("rows", "cols", "rows_in_block")]
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"{path}: found no readable metadata in {path}.mtd; write it again") from error
        try:
            with self._errors():
                convert = self._jvm.org.apache.sysds.runtime.util.DataConverter
                block = convert.readMatrixFromHDFS(str(path.resolve()), self._binary, *size)
                array = self._transfer.fetch(block)
        except RuntimeError as error:
            raise UserError(f"{path}: found a damaged matrix ({error}); write it again") from error
        # the engine reads a part that is lost as zeros
        found, expected = np.count_nonzero(array), described.get("nnz", -1)
        if expected not in (-1, found):
            raise UserError(
                f"{path}: found {found} values other than 0, expected {expected} as its metadata says; "
                "write it again"
            )
        return array

    def open(self, path: str, rows: int, columns: int) -> JavaObject:
        """A handle of a dense matrix in a file of any file system, which is read where it is used."""
        with self._errors():
            runtime = self._jvm.org.apache.sysds.runtime
            double = self._jvm.org.apache.sysds.common.Types.ValueType.FP64
            place = runtime.meta.MetaDataFormat(self._size(rows, columns, rows * columns), self._binary)
            matrix = runtime.controlprogram.caching.MatrixObject(double, path, place)
            matrix.enableCleanup(False)  # or the engine would delete the file once a program has used it
            return matrix

    def _write_part(self, file: Path, row: int, values: np.ndarray) -> None:
        runtime, hadoop = self._jvm.org.apache.sysds.runtime, self._jvm.org.apache.hadoop
        job = hadoop.mapred.JobConf()
        job.set("zlib.compress.level", "BEST_SPEED")
        runtime.util.HDFSTool.addBinaryBlockSerializationFramework(job)
        codec = hadoop.io.compress.DefaultCodec()
        codec.setConf(job)
        sequence = hadoop.io.SequenceFile
        matrix = runtime.matrix.data
        path = hadoop.fs.Path(str(file.resolve()))
        writer = sequence.createWriter(
            path.getFileSystem(job),
            job,
            path,
            matrix.MatrixIndexes(1, 1).getClass(),
            matrix.MatrixBlock().getClass(),
            sequence.CompressionType.RECORD,
            codec,
        )
        try:
            for column in range(0, values.shape[1], BLOCK_SIZE):
                block = self._transfer.send(values[:, column : column + BLOCK_SIZE])
                writer.append(matrix.MatrixIndexes(row + 1, column // BLOCK_SIZE + 1), block)
                uncycle(block)
        finally:
            writer.close()
        file.with_name(f".{file.name}.crc").unlink(missing_ok=True)  # Hadoop's, of the unfinished name

    @property
    def _binary(self) -> object:
        return self._jvm.org.apache.sysds.common.Types.FileFormat.BINARY

    def _size(self, rows: int, columns: int, nonzeros: int) -> object:
        return self._jvm.org.apache.sysds.runtime.meta.MatrixCharacteristics(
            rows, columns, BLOCK_SIZE, nonzeros
        )

    def _write_metadata(self, path: Path, size: object) -> None:
        double = self._jvm.org.apache.sysds.common.Types.ValueType.FP64
        tool = self._jvm.org.apache.sysds.runtime.util.HDFSTool
        tool.writeMetaDataFile(f"{path.resolve()}.mtd", double, size, self._binary)
