"""Lists of matrices in the JVM, which DML programs take and give as one value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
from py4j.java_gateway import JavaGateway, JavaObject

from sysds_resnet.engine.device import Device
from sysds_resnet.engine.jvm.classes import compile_classes
from sysds_resnet.engine.mapped_list import MappedList
from sysds_resnet.engine.transfer import call, uncycle
from sysds_resnet.engine.values import is_block


class Lists:
    """The functions that make list handles from matrices, and matrices from list handles.

    Args:
        gateway: The py4j gateway of the engine's JVM.
        device: The device that the engine computes on.
    """

    def __init__(self, gateway: JavaGateway, device: Device) -> None:
        self._gateway, self._jvm, self._device = gateway, gateway.jvm, device

    def items(self, handle: JavaObject) -> list[JavaObject]:
        """Gives the handles of the matrices in a list."""
        blocks = []
        for i in range(call(handle, "getLength")):
            item = call(handle, "getData", i)
            blocks.append(item.acquireRead())
            item.release()
            self._device.upload(item)  # back to the GPU, which the matrix has left
            uncycle(item)
        return blocks

    def compact(self, handle: JavaObject) -> JavaObject:
        """Gives the same list with its sparse matrices as arrays (CSR), not as one object for each row."""
        csr = self._jvm.org.apache.sysds.runtime.data.SparseBlock.Type.CSR
        block = self._jvm.org.apache.sysds.runtime.matrix.data.MatrixBlock
        items = self.items(handle)
        compact = [block(m, csr, True) if call(m, "isInSparseFormat") else m for m in items]
        uncycle(*items)
        return self.make(compact)

    def map(
        self,
        like: JavaObject,
        single: bool,
        more: int,
        folder: Path,
        alone: Callable[[], AbstractContextManager[None]],
    ) -> MappedList:
        """Gives memory for the numbers of lists with matrices of the same shapes as those of a given list.

        Args:
            like: The handle of the list.
            single: Whether the numbers in the memory are FP32 instead of FP64.
            more: How many numbers of the caller's own there is room for before them.
            folder: The folder for the memory's file if there is no room in shared memory.
            alone: As for `MappedList`.

        Raises:
            UserError: If there is no room, or the JVM cannot compile Java.
        """
        [new] = compile_classes(self._gateway, Path(__file__).with_name("jvm"), "MappedList")
        return MappedList(self._device, new, like, single, more, folder, alone)

    def make(self, matrices: Sequence[np.ndarray | JavaObject]) -> JavaObject:
        """Makes a list of matrix handles and of arrays, which it sends first."""
        java = self._jvm.org.apache.sysds.runtime
        data = self._jvm.java.util.ArrayList()
        for matrix in (self._device.send(m) if isinstance(m, np.ndarray) else m for m in matrices):
            item = self._device.take(matrix)
            if is_block(item):
                item = java.controlprogram.paramserv.ParamservUtils.newMatrixObject(matrix, False)
            data.add(item)
            uncycle(matrix, item)
        self._device.upload(data)
        handle = java.instructions.cp.ListObject(data)
        self._gateway.detach(data)  # py4j's lists are reference cycles from the start
        return handle
