"""Memory in which Python sees the numbers of a list of matrices that are in the JVM."""

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
from py4j.java_gateway import JavaObject

from sysds_resnet.engine.device import Device
from sysds_resnet.engine.jvm.folders import make_shared_file
from sysds_resnet.engine.transfer import call, uncycle


class MappedList:
    """Memory that Python and the JVM both map, for the numbers of lists whose matrices have given shapes.

    Args:
        device: The device that the engine computes on.
        new: A function that makes a MappedList in the JVM from the arguments of its constructor.
        like: The handle of a list with the shapes.
        single: Whether the numbers are FP32.
        more: How many numbers of the caller's own there is room for before those of a list.
        folder: The folder for the file if there is no room in shared memory.
        alone: A function that gives a context in which no other thread uses the device's memory, and which
            turns errors of the JVM into those of this package.

    Attributes:
        values: The numbers, float32 or float64 of shape (n,): the caller's own, and then those of a list, row
            by row and one matrix after the other.
        starts: The place in `values` of each matrix, and of the end, int64 of shape (matrices + 1,).
        file: The open file that they are in, which has no name.

    Raises:
        UserError: If there is no room for the memory.
    """

    def __init__(
        self,
        device: Device,
        new: Callable[[Sequence[object]], JavaObject],
        like: JavaObject,
        single: bool,
        more: int,
        folder: Path,
        alone: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._device, self._alone = device, alone
        dtype = np.dtype("f4" if single else "f8")
        items = [call(like, "getData", i) for i in range(call(like, "getLength"))]
        sizes = [call(item, "getNumRows") * call(item, "getNumColumns") for item in items]
        self.starts = np.cumsum([more, *sizes])
        n = int(self.starts[-1])
        path = make_shared_file(n * dtype.itemsize, [folder])
        try:
            self._java = new([str(path), like, single, more])
            self.file = open(path, "r+b")  # noqa: SIM115  as long as the memory
            self.values = np.memmap(self.file, dtype, mode="r+", shape=(n,))
        finally:
            os.unlink(path)  # both sides keep their mapping; nothing stays behind after a crash

    def read(self, handle: JavaObject, place: int = 0, n: int | None = None) -> None:
        """Copies the numbers of a list, or of a part of one, into the memory; in FP32 they are rounded.

        Args:
            handle: The handle of the list.
            place: The place among the matrices in the memory that the list's first one is for, from 0.
            n: The number of the list's matrices that are copied; by default all.
        """
        with self._alone():
            self._java.read(handle, place, call(handle, "getLength") if n is None else n)
        uncycle(handle)

    def write(self, handle: JavaObject) -> None:
        """Replaces the numbers of a list, which must be in no other list, by those in the memory."""
        with self._alone():
            self._java.write(handle)
            self._device.upload(call(handle, "getData"))  # back to the GPU, which `read` has taken them from
        uncycle(handle)
