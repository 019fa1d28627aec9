"""What a run takes of its machine: a thread that samples processor, memory and GPU."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import ModuleType
from typing import Any

import psutil

INTERVAL = 10.0
CLOSING = 2.0  # seconds to wait for a sample under way; a JVM that hangs does not answer


class ResourceSampler:
    """Gives what the run takes, every few seconds, until `close`; usable in a `with` statement.

    The run is this process and all that descend from it: the JVM, the processes that read images. A figure
    that cannot be had at a time is left out of that sample.

    Args:
        write: Is called by a thread: write(event="resources", step=..., ...) with the figures of `sample`.
        step: Gives the number of steps done.
        heap_bytes: Gives the bytes of the JVM's heap in use.
        interval: Seconds between samples; the first comes after as many.
    """

    def __init__(
        self,
        write: Callable[..., None],
        step: Callable[[], int],
        heap_bytes: Callable[[], int] | None = None,
        interval: float = INTERVAL,
    ) -> None:
        self._write, self._step, self._heap_bytes, self._interval = write, step, heap_bytes, interval
        self._usage, self._gpus = ProcessUsage(), Gpus()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sysds-resnet-resources", daemon=True)
        self._thread.start()

    def __enter__(self) -> ResourceSampler:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the thread; nothing is written after that."""
        self._stopped.set()
        self._thread.join(CLOSING)
        self._gpus.close()

    def sample(self) -> dict[str, float]:
        """The figures now.

        Returns:
            cpu_percent and rss_bytes (see `ProcessUsage`), heap_bytes, and of GPUs gpu_percent,
            gpu_memory_bytes, gpu_power_w (see `Gpus`).
        """
        figures: dict[str, float] = self._usage.sample()
        if self._heap_bytes is not None:
            with suppress(Exception):  # a JVM that has ended is the training loop's to report
                figures["heap_bytes"] = int(self._heap_bytes())
        return figures | self._gpus.sample()

    def _run(self) -> None:
        while not self._stopped.wait(self._interval):
            with suppress(Exception):  # it only reports; the next sample may succeed
                figures = self.sample()
                if not self._stopped.is_set():
                    self._write(event="resources", step=self._step(), **figures)


class ProcessUsage:
    """Processor time and memory of this process and all that descend from it.

    cpu_percent is processor time since the sample before over time passed; 100 is one core. It is made from
    each process's own times, so that those that come and go do not show as jumps; what a process used between
    its last sample and its end is missing.

    rss_bytes is resident memory without what is shared: program files, shared memory, and files mapped into
    memory, such as prepared data sets, which the kernel takes back when it needs to. The proportional set
    size would divide these up, but takes 15 to 20 ms to read for each GiB (by hand, pages of 4 KiB).
    """

    def __init__(self) -> None:
        self._before: dict[psutil.Process, float] = {}
        self._time = time.perf_counter()
        self.sample()

    def sample(self) -> dict[str, float]:
        """cpu_percent since the last call, or since this was made, and rss_bytes."""
        here = psutil.Process()
        now, seconds, rss = time.perf_counter(), {}, 0
        for process in [here, *here.children(recursive=True)]:
            with suppress(psutil.Error), process.oneshot():  # it may have ended since
                times, memory = process.cpu_times(), process.memory_info()
                seconds[process] = times.user + times.system
                rss += memory.rss - getattr(memory, "shared", 0)  # which only Linux tells
        used = sum(value - self._before.get(process, 0.0) for process, value in seconds.items())
        passed = max(now - self._time, 1e-9)
        self._before, self._time = seconds, now
        return {"cpu_percent": 100 * used / passed, "rss_bytes": rss}


class Gpus:
    """NVIDIA's GPUs by its management library, if the package nvidia-ml-py is installed: sums over them.

    They are those that CUDA_VISIBLE_DEVICES names, or all; figures are of whole devices, whoever uses them.
    Tested with an imitation of the library only, on no real GPU.
    """

    def __init__(self) -> None:
        self._nvml: ModuleType | None = None
        self._handles: list[Any] = []
        try:
            import pynvml
        except ImportError:
            return
        with suppress(pynvml.NVMLError):  # no driver, or no GPU
            pynvml.nvmlInit()
            self._nvml = pynvml
            self._handles = _visible(pynvml)

    def sample(self) -> dict[str, float]:
        """gpu_percent (100 is one GPU), gpu_memory_bytes in use, gpu_power_w: those that it tells."""
        if self._nvml is None or not self._handles:
            return {}
        nvml, figures = self._nvml, {}
        readings = {
            "gpu_percent": lambda gpu: nvml.nvmlDeviceGetUtilizationRates(gpu).gpu,
            "gpu_memory_bytes": lambda gpu: nvml.nvmlDeviceGetMemoryInfo(gpu).used,
            "gpu_power_w": lambda gpu: nvml.nvmlDeviceGetPowerUsage(gpu) / 1000,  # from milliwatts
        }
        for name, read in readings.items():
            with suppress(nvml.NVMLError):
                figures[name] = sum(read(gpu) for gpu in self._handles)
        return figures

    def close(self) -> None:
        """Lets go of the library."""
        if self._nvml is not None:
            with suppress(self._nvml.NVMLError):
                self._nvml.nvmlShutdown()
            self._nvml = None


def _visible(nvml: ModuleType) -> list[Any]:
    names = os.environ.get("CUDA_VISIBLE_DEVICES")
    if names is None:
        return [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]
    handles = []
    for name in names.split(","):
        get = nvml.nvmlDeviceGetHandleByIndex if name.isdigit() else nvml.nvmlDeviceGetHandleByUUID
        try:
            handles.append(get(int(name) if name.isdigit() else name))
        except nvml.NVMLError:
            break  # CUDA, too, ignores what follows a name that it does not know
    return handles
