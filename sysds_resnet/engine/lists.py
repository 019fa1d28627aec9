"""Lists of matrices in the JVM, which programs take and give as one value."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from py4j.java_gateway import JavaGateway, JavaObject

from sysds_resnet.engine.gpu.gpus import Gpus
from sysds_resnet.engine.transfer import call, uncycle
from sysds_resnet.engine.values import is_block, is_host_matrix


class Lists:
    """What makes list handles, and takes them apart.

    Args:
        gateway: Of the engine's JVM.
        gpus: What it computes on, if not the CPU.
        send: Copies an array into the JVM, as `Engine.send`.
    """

    def __init__(
        self, gateway: JavaGateway, gpus: Gpus | None, send: Callable[[np.ndarray], JavaObject]
    ) -> None:
        self._gateway, self._jvm, self._gpus, self._send = gateway, gateway.jvm, gpus, send

    def items(self, handle: JavaObject) -> list[JavaObject]:
        """As `Engine.list_items`."""
        blocks = []
        for i in range(call(handle, "getLength")):
            item = call(handle, "getData", i)
            blocks.append(item.acquireRead())
            item.release()
            if self._gpus:
                self._gpus.upload(item)  # which has left the GPU
            uncycle(item)
        return blocks

    def compact(self, handle: JavaObject) -> JavaObject:
        """As `Engine.compact`."""
        csr = self._jvm.org.apache.sysds.runtime.data.SparseBlock.Type.CSR
        block = self._jvm.org.apache.sysds.runtime.matrix.data.MatrixBlock
        items = self.items(handle)
        compact = [block(m, csr, True) if call(m, "isInSparseFormat") else m for m in items]
        uncycle(*items)
        return self.make(compact)

    def make(self, matrices: Sequence[np.ndarray | JavaObject]) -> JavaObject:
        """As `Engine.make_list`."""
        java = self._jvm.org.apache.sysds.runtime
        data = self._jvm.java.util.ArrayList()
        for matrix in (self._send(m) if isinstance(m, np.ndarray) else m for m in matrices):
            item = matrix
            if is_block(matrix):
                item = java.controlprogram.paramserv.ParamservUtils.newMatrixObject(matrix, False)
            elif is_host_matrix(matrix):
                item = self._gpus.to_first(matrix)
            data.add(item)
            uncycle(matrix, item)
        if self._gpus:
            self._gpus.upload(data)
        handle = java.instructions.cp.ListObject(data)
        self._gateway.detach(data)  # py4j's lists are cycles from the start
        return handle
