"""The resources that a run takes of its machine: a thread samples processor, memory and GPU."""

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
    """The thread that samples what the run takes, every few seconds until `close`; for a `with` statement.

    The run is this process and all its descendants: the JVM and the processes that read images. A figure that
    cannot be had at a time is left out of that sample.

    Args:
        write: A function that the thread calls as write(event="resources", step=..., ...) with the figures of
            `sample`.
        step: A function that gives the number of steps done.
        heap_bytes: A function that gives the bytes of the JVM's heap in use.
        interval: The seconds between samples, and before the first one.
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
        """Samples the figures now.

        Returns:
            The figures by name: cpu_percent and rss_bytes from `ProcessUsage`; heap_bytes; and gpu_percent,
            gpu_memory_bytes and gpu_power_w from `Gpus`.
        """
        figures: dict[str, float] = self._usage.sample()
        if self._heap_bytes is not None:
            with suppress(Exception):  # if the JVM has ended, the training loop reports it
                figures["heap_bytes"] = int(self._heap_bytes())
        return figures | self._gpus.sample()

    def _run(self) -> None:
        while not self._stopped.wait(self._interval):
            with suppress(Exception):  # samples are only reports, and the next one may succeed
                figures = self.sample()
                if not self._stopped.is_set():
                    self._write(event="resources", step=self._step(), **figures)


class ProcessUsage:
    """The processor time and the memory of this process and all its descendants.

    cpu_percent is the processor time since the sample before, divided by the time that passed; 100 is one
    core. It is computed from each process's own times, so that processes that come and go do not show as
    jumps; what a process used between its last sample and its end is missing.

    rss_bytes is the resident memory without what is shared: program files, shared memory, and files mapped
    into memory, such as prepared data sets, which the kernel takes back when it needs to. The proportional
    set size would divide these up among processes, but takes 15 to 20 ms to read for each GiB (measured by
    hand, with pages of 4 KiB).
    """

    def __init__(self) -> None:
        self._before: dict[psutil.Process, float] = {}
        self._time = time.perf_counter()
        self.sample()

    def sample(self) -> dict[str, float]:
        """Gives cpu_percent since the last call, or since this object was made, and rss_bytes."""
        here = psutil.Process()
        now, seconds, rss = time.perf_counter(), {}, 0
        for process in [here, *here.children(recursive=True)]:
            with suppress(psutil.Error), process.oneshot():  # the process may have ended since
                times, memory = process.cpu_times(), process.memory_info()
                seconds[process] = times.user + times.system
                rss += memory.rss - getattr(memory, "shared", 0)  # only Linux tells what is shared
        used = sum(value - self._before.get(process, 0.0) for process, value in seconds.items())
        passed = max(now - self._time, 1e-9)
        self._before, self._time = seconds, now
        return {"cpu_percent": 100 * used / passed, "rss_bytes": rss}


class Gpus:
    """The use of NVIDIA's GPUs, by its management library if the package nvidia-ml-py is installed.

    The figures are sums over the GPUs that CUDA_VISIBLE_DEVICES names, or over all. They cover whole devices,
    whoever uses them. This is tested with an imitation of the library only, on no real GPU.
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
        """Gives gpu_percent (100 is one GPU), gpu_memory_bytes in use and gpu_power_w, as far as known."""
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
        """Releases the library."""
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
