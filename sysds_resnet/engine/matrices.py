"""Binary matrices of SystemDS in files, read and written by the engine."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
from py4j.java_gateway import JVMView

from sysds_resnet.engine.blocks import BLOCK_SIZE
from sysds_resnet.engine.transfer import Transfer
from sysds_resnet.errors import UserError


class MatrixFiles:
    """A reader and writer of binary matrices: PATH, a file or a folder of parts, and its metadata PATH.mtd.

    Args:
        jvm: The py4j view of the engine's JVM.
        transfer: The buffer through which arrays are copied to and from the JVM.
        errors: A function that gives a context, which turns errors of the engine into those of this package.
    """

    def __init__(
        self, jvm: JVMView, transfer: Transfer, errors: Callable[[], AbstractContextManager[None]]
    ) -> None:
        self._jvm = jvm
        self._transfer = transfer
        self._errors = errors

    def write(self, path: Path, array: np.ndarray) -> None:
        """Writes a 2-D array of numbers, with its metadata."""
        with self._errors():
            block = self._transfer.send(array)
            size = self._size(*array.shape, block.getNonZeros())
            converter = self._jvm.org.apache.sysds.runtime.util.DataConverter
            # an absolute path, since the JVM has another working directory
            converter.writeMatrixToHDFS(block, str(path.resolve()), self._binary, size)
            self._write_metadata(path, size)

    def read(self, path: Path) -> np.ndarray:
        """Reads a matrix of the size that its metadata states.

        Raises:
            UserError: If the matrix or its metadata is missing or damaged.
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
        # the engine reads zeros where a part of the matrix is missing
        found, expected = np.count_nonzero(array), described.get("nnz", -1)
        if expected not in (-1, found):
            raise UserError(
                f"{path}: found {found} values other than 0, expected {expected} as its metadata says; "
                "write it again"
            )
        return array

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
