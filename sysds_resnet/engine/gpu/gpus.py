"""NVIDIA GPUs as the device that the engine computes on."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from py4j.java_gateway import JavaGateway, JavaObject

from sysds_resnet.engine.device import Operator, Result
from sysds_resnet.engine.gpu.cuda import environment
from sysds_resnet.engine.jvm.classes import compile_classes, java_array, replace_class, set_static
from sysds_resnet.engine.operators.templates import Storage
from sysds_resnet.engine.program import Place, Program
from sysds_resnet.engine.transfer import Transfer, uncycle
from sysds_resnet.engine.values import Value, is_host_matrix

TF32 = "NVIDIA_TF32_OVERRIDE"
"""The variable that makes cuBLAS and cuDNN use TF32 (1) or not (0); by default, cuDNN alone uses it."""


REPLACED = {
    "LibMatrixCuDNNConvolutionAlgorithm": "matrix.data.LibMatrixCUDA",
    "GpuArithmetic": "instructions.gpu.GPUInstruction",
    "SpoofCUDAInstruction": "instructions.gpu.GPUInstruction",
}
"""Classes that replace the engine's, and what they use, each with another class of its Java package."""

_FOLDER = Path(__file__).parent
_SMALL = 2**13  # the most values of an array that goes to the JVM in the call itself, as text


def gpu_environment(tf32: bool) -> dict[str, str]:
    """Gives the environment variables that a JVM needs to compute on GPUs.

    Args:
        tf32: Whether to multiply in TF32.
    """
    return {"LD_LIBRARY_PATH": environment()["LD_LIBRARY_PATH"], TF32: "1" if tf32 else "0"}


class Gpus:
    """The GPUs that the engine's JVM computes on: a `Device`, as engine/device.py defines it.

    What is compiled within `compiling(True)` runs on GPUs as far as the engine can, and all else on the CPU.

    Args:
        gateway: The py4j gateway of the JVM.
        transfer: The shared memory through which arrays get into the JVM.
        single: Whether to compute in single precision.
        devices: The numbers of the GPUs; matrices are on the first one between programs.
        settings: More of the engine's settings, by name.

    Attributes:
        name: The name of the first GPU.
    """

    def __init__(
        self,
        gateway: JavaGateway,
        transfer: Transfer,
        single: bool,
        devices: Sequence[int],
        settings: Mapping[str, str],
    ) -> None:
        self._gateway, self._jvm = gateway, gateway.jvm
        self._transfer, self._single = transfer, single
        self._sysds = self._jvm.org.apache.sysds
        config = self._sysds.conf.DMLConfig()
        config.setTextValue("sysds.floating.point.precision", "single" if single else "double")
        config.setTextValue("sysds.gpu.availableGPUs", ",".join(map(str, devices)))
        for name, value in settings.items():
            config.setTextValue(name, value)
        self._config = config
        self._set_static("USE_ACCELERATOR", True)
        self._sysds.api.DMLScript.setGlobalFlags(config)
        package = "org.apache.sysds.runtime"
        for name, neighbour in REPLACED.items():
            replace_class(gateway, _FOLDER / "replaced" / f"{name}.java", f"{package}.{neighbour}")
        pool = self._sysds.runtime.instructions.gpu.context.GPUContextPool
        self._contexts = pool.reserveAllGPUContexts()
        properties = self._jvm.jcuda.runtime.cudaDeviceProp()
        self._jvm.jcuda.runtime.JCuda.cudaGetDeviceProperties(properties, devices[0])
        self.name: str = properties.getName()
        new_functions, new_devices, self._new_matrix, new_runner = compile_classes(
            gateway, _FOLDER, "GpuFunctions", "Devices", "HostMatrix", "Runner"
        )
        self._functions, self._devices = new_functions([]), new_devices([self._contexts])
        self._devices.replaceManagers()
        self._runner = new_runner([self._contexts, self._devices])

    def accelerates(self, place: Place) -> bool:
        """Tells whether programs of a place are compiled for a GPU."""
        return place in ("device", "workers")

    def start(self, storage: Storage) -> None:
        """Makes the engine free the memory of matrices that no variable holds, as on the command line.

        JMLC's connections switch this off, so call it after them: otherwise nothing on a GPU is ever freed.
        https://github.com/apache/systemds/blob/3.4.0-rc2/src/main/java/org/apache/sysds/runtime/controlprogram/context/ExecutionContext.java
        """
        self._sysds.conf.ConfigurationManager.setLocalConfig(self._config)
        self._sysds.runtime.controlprogram.caching.CacheableData.initCaching()

    def send(self, array: np.ndarray) -> JavaObject:
        """Copies a 2-D array into the JVM, in the GPUs' precision, which gets to a GPU sooner."""
        values = self._transfer.send_values(array, self._single)
        matrix = self._new_matrix([*array.shape, values])
        uncycle(values)
        return matrix

    def take(self, matrix: JavaObject) -> JavaObject:
        """Copies a matrix that `send` gave to the first GPU; gives other matrices back as they are."""
        if not is_host_matrix(matrix):
            return matrix
        copied = matrix.copyTo(self._contexts.get(0))
        uncycle(matrix)
        return copied

    def upload(self, matrices: JavaObject) -> None:
        """Copies a matrix, or the data of a list of only matrices, to the first GPU (see Devices.java)."""
        self._devices.upload(matrices)

    @contextmanager
    def compiling(self, accelerated: bool) -> Iterator[None]:
        """Makes the engine compile programs for the GPU, or for the CPU, during a `with` block."""
        self._set_static("USE_ACCELERATOR", accelerated)
        # sizes are unknown when programs are compiled, and the engine would then choose the CPU
        self._set_static("FORCE_ACCELERATOR", accelerated)
        try:
            yield
        finally:
            self._set_static("USE_ACCELERATOR", True)

    def install(self, program: JavaObject, on_cpu: JavaObject) -> None:
        """Replaces functions of a compiled program by our own instructions for GPUs (GpuFunctions.java).

        Args:
            program: The program, compiled for a GPU.
            on_cpu: The same program compiled for the CPU, where some functions stay.
        """
        self._functions.install(program, on_cpu)

    def run(self, script: JavaObject, inputs: Mapping[str, Value], program: Program) -> dict[str, Result]:
        """Runs a prepared script of a program, and gives its outputs by name.

        If the program's place is "workers", all GPUs compute, and each gets the matrices in its variables.
        """
        accelerated = self.accelerates(program.place)
        send = self.send if accelerated else self._transfer.send
        words, cells, handles = [], [], []
        for name, value in inputs.items():
            if isinstance(value, np.ndarray) and value.size > _SMALL:
                words += [name, "handle", ""]
                handles.append(send(value))
            elif isinstance(value, np.ndarray):
                rows, columns = value.shape if value.ndim == 2 else (len(value), 1)
                words += [name, "matrix", f"{rows} {columns}"]
                cells.append(value.astype("<f8").tobytes())
            elif isinstance(value, JavaObject):
                words += [name, "handle", ""]
                handles.append(value)
            else:
                words += [name, type(value).__name__, str(value)]
        sent = java_array(self._gateway, handles)
        names = " ".join(program.outputs)
        flags = accelerated, program.held, program.place == "workers"
        results = self._runner.run(script, "\1".join(words), b"".join(cells), sent, names, *flags)
        values = list(results)
        uncycle(sent, results, *handles)
        return {
            name: float(value) if kind == "double" else value
            for (name, kind), value in zip(program.outputs.items(), values, strict=True)
        }

    def free(self, lists: Sequence[JavaObject], keep: Sequence[JavaObject]) -> None:
        """Frees the memory of the matrices in lists, except those that are also in lists to keep."""
        freed, kept = (java_array(self._gateway, handles) for handles in (lists, keep))
        self._devices.free(freed, kept)
        uncycle(freed, kept)

    def recycle(self, lists: Sequence[JavaObject], keep: Sequence[JavaObject]) -> None:
        """Does nothing: the memory of lists is on GPUs, and `free` frees it."""

    @contextmanager
    def operators(self) -> Iterator[dict[str, Operator]]:
        """Times the instructions that run in a `with` block, by name, each after the one before it has ended.

        The mapping that it gives is filled at the end of the block.
        """
        statistics = self._sysds.utils.Statistics
        found: dict[str, Operator] = {}
        names = ("STATISTICS", "SYNCHRONIZE_GPU")
        try:
            for name in names:
                self._set_static(name, True)
            statistics.reset()
            yield found
            text = statistics.display(10**6)
        finally:
            for name in names:
                self._set_static(name, False)
        for name, seconds, count in re.findall(r"^ *\d+  (\S+) +([\d.]+) +(\d+)$", text, re.MULTILINE):
            found[name] = Operator(float(seconds), int(count))
        moved = self._sysds.utils.GPUStatistics
        for name, counter in (("copies to the GPU", "cudaToDev"), ("copies from the GPU", "cudaFromDev")):
            seconds = int(getattr(moved, f"{counter}Time")) / 1e9
            found[name] = Operator(seconds, int(getattr(moved, f"{counter}Count")))

    def memory(self) -> tuple[int, int]:
        """Gives the bytes that are free on the first GPU, and the bytes that it has."""
        free, total = self._long_array(), self._long_array()
        self._contexts.get(0).initializeThread()
        self._jvm.jcuda.runtime.JCuda.cudaMemGetInfo(free, total)
        return free[0], total[0]

    def _long_array(self) -> JavaObject:
        return self._gateway.new_array(self._jvm.long, 1)

    def _set_static(self, name: str, value: bool) -> None:
        set_static(self._jvm, "org.apache.sysds.api.DMLScript", name, value)
