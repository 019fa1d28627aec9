"""Lists of matrices in the JVM, which programs take and give as one value."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from py4j.java_gateway import JavaGateway, JavaObject

from sysds_resnet.engine.device import Device
from sysds_resnet.engine.transfer import call, uncycle
from sysds_resnet.engine.values import is_block


class Lists:
    """What makes list handles, and takes them apart.

    Args:
        gateway: Of the engine's JVM.
        device: What it computes on.
    """

    def __init__(self, gateway: JavaGateway, device: Device) -> None:
        self._gateway, self._jvm, self._device = gateway, gateway.jvm, device

    def items(self, handle: JavaObject) -> list[JavaObject]:
        """As `Engine.list_items`."""
        blocks = []
        for i in range(call(handle, "getLength")):
            item = call(handle, "getData", i)
            blocks.append(item.acquireRead())
            item.release()
            self._device.upload(item)  # which has left a GPU
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
        for matrix in (self._device.send(m) if isinstance(m, np.ndarray) else m for m in matrices):
            item = self._device.take(matrix)
            if is_block(item):
                item = java.controlprogram.paramserv.ParamservUtils.newMatrixObject(matrix, False)
            data.add(item)
            uncycle(matrix, item)
        self._device.upload(data)
        handle = java.instructions.cp.ListObject(data)
        self._gateway.detach(data)  # py4j's lists are cycles from the start
        return handle
