"""NVIDIA GPUs as what the engine computes on."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from py4j.java_gateway import JavaGateway, JavaObject

from sysds_resnet.engine.device import Result
from sysds_resnet.engine.gpu.cuda import environment
from sysds_resnet.engine.jvm.classes import compile_classes, java_array, replace_class, set_static
from sysds_resnet.engine.program import Place, Program
from sysds_resnet.engine.transfer import Transfer, uncycle
from sysds_resnet.engine.values import Value, is_host_matrix

TF32 = "NVIDIA_TF32_OVERRIDE"
"""Read by cuBLAS and cuDNN: 0 forbids TF32, in which cuDNN multiplies of itself, and 1 has both use it."""


REPLACED = {
    "LibMatrixCuDNNConvolutionAlgorithm": "matrix.data.LibMatrixCUDA",
    "SpoofCUDAInstruction": "instructions.gpu.GPUInstruction",
}
"""The engine's classes in whose place our own are put, each with another class of its package."""

_FOLDER = Path(__file__).parent
_SMALL = 2**13  # numbers in an array that may go to the JVM as text


def gpu_environment(tf32: bool) -> dict[str, str]:
    """What a JVM that computes on GPUs needs in its environment.

    Args:
        tf32: Whether to multiply in TF32.
    """
    return {"LD_LIBRARY_PATH": environment()["LD_LIBRARY_PATH"], TF32: "1" if tf32 else "0"}


@dataclass(frozen=True)
class Operator:
    """What a kind of instruction took: seconds, and how many there were."""

    seconds: float
    count: int


class Gpus:
    """The GPUs that a JVM of our own computes on; see `Device` in engine/device.py.

    What is compiled within `compiling` runs there as far as the engine can, and all else on the CPU.

    Args:
        gateway: Of the JVM.
        transfer: Copies arrays into it.
        single: Whether to compute in single precision.
        devices: Numbers of the GPUs.
        settings: More of the engine's settings, by name.

    Attributes:
        name: Of the first GPU.
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
        """See `Device`."""
        return place in ("device", "workers")

    def start(self) -> None:
        """Has the engine free the memory of matrices that no variable holds, as from the command line.

        Connections switch this off, so this comes after them: without it nothing on a GPU is ever freed.
        https://github.com/apache/systemds/blob/3.4.0-rc2/src/main/java/org/apache/sysds/runtime/controlprogram/context/ExecutionContext.java
        """
        self._sysds.conf.ConfigurationManager.setLocalConfig(self._config)
        self._sysds.runtime.controlprogram.caching.CacheableData.initCaching()

    def send(self, array: np.ndarray) -> JavaObject:
        """Copies a 2-D array in the precision of the GPUs, as which it gets there sooner."""
        values = self._transfer.send_values(array, self._single)
        matrix = self._new_matrix([*array.shape, values])
        uncycle(values)
        return matrix

    def take(self, matrix: JavaObject) -> JavaObject:
        """Copies what `send` gave to the first GPU; other matrices are given back."""
        if not is_host_matrix(matrix):
            return matrix
        copied = matrix.copyTo(self._contexts.get(0))
        uncycle(matrix)
        return copied

    def upload(self, matrices: JavaObject) -> None:
        """Copies a matrix, or the data of a list of matrices alone, to the first GPU (see Devices.java)."""
        self._devices.upload(matrices)

    @contextmanager
    def compiling(self, accelerated: bool) -> Iterator[None]:
        """Has the engine compile programs for the GPU, or for the CPU."""
        self._set_static("USE_ACCELERATOR", accelerated)
        # sizes are unknown where programs are compiled, and the engine would take the CPU
        self._set_static("FORCE_ACCELERATOR", accelerated)
        try:
            yield
        finally:
            self._set_static("USE_ACCELERATOR", True)

    def install(self, program: JavaObject, on_cpu: JavaObject) -> None:
        """Puts what functions of DML are on a GPU into a compiled program (GpuFunctions.java).

        Args:
            program: Compiled for a GPU.
            on_cpu: The same compiled for the CPU, where some functions stay.
        """
        self._functions.install(program, on_cpu)

    def run(self, script: JavaObject, inputs: Mapping[str, Value], program: Program) -> dict[str, Result]:
        """See `Device`. With "workers" all GPUs compute, and need what is in the program's variables."""
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
        """Frees the memory of the matrices in lists, but for those that are also in others."""
        freed, kept = (java_array(self._gateway, handles) for handles in (lists, keep))
        self._devices.free(freed, kept)
        uncycle(freed, kept)

    @contextmanager
    def operators(self) -> Iterator[dict[str, Operator]]:
        """Counts the instructions that run meanwhile, one after the other; the result is full at the end."""
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
        """Bytes that are free on the first GPU, and bytes that it has."""
        free, total = self._long_array(), self._long_array()
        self._contexts.get(0).initializeThread()
        self._jvm.jcuda.runtime.JCuda.cudaMemGetInfo(free, total)
        return free[0], total[0]

    def _long_array(self) -> JavaObject:
        return self._gateway.new_array(self._jvm.long, 1)

    def _set_static(self, name: str, value: bool) -> None:
        set_static(self._jvm, "org.apache.sysds.api.DMLScript", name, value)
