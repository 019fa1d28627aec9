"""What a run takes of GPUs, against a stand-in of NVIDIA's library NVML."""

import sys
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from lone_process import be_alone, wait_until

from sysds_resnet.report.resources import Gpus, ResourceSampler


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """No GPU, whatever this machine has, and no processes of other tests."""
    be_alone(monkeypatch)


class NvmlError(Exception):
    """As pynvml's own."""


class FakeNvml:
    """Two GPUs as the NVML library shows them; `lacking` are functions that a device does not have."""

    NVMLError = NvmlError

    def __init__(self, *lacking):
        self.lacking, self.initialized, self.names = lacking, 0, ["GPU-aaaa", "GPU-bbbb"]

    def _check(self, name):
        if name in self.lacking or not self.initialized:
            raise NvmlError(name)

    def nvmlInit(self):
        if "nvmlInit" in self.lacking:
            raise NvmlError("driver not loaded")
        self.initialized += 1

    def nvmlShutdown(self):
        self.initialized -= 1

    def nvmlDeviceGetCount(self):
        self._check("nvmlDeviceGetCount")
        return 2

    def nvmlDeviceGetHandleByIndex(self, index):
        if index not in (0, 1):
            raise NvmlError("invalid argument")
        return index

    def nvmlDeviceGetHandleByUUID(self, name):
        if name not in self.names:
            raise NvmlError("not found")
        return self.names.index(name)

    def nvmlDeviceGetUtilizationRates(self, gpu):
        self._check("nvmlDeviceGetUtilizationRates")
        return SimpleNamespace(gpu=[90, 20][gpu], memory=50)

    def nvmlDeviceGetMemoryInfo(self, gpu):
        self._check("nvmlDeviceGetMemoryInfo")
        return SimpleNamespace(used=[6 * 2**30, 2**30][gpu], total=80 * 2**30)

    def nvmlDeviceGetPowerUsage(self, gpu):
        self._check("nvmlDeviceGetPowerUsage")
        return [300_500, 60_000][gpu]


@contextmanager
def gpus(monkeypatch, *lacking):
    fake = FakeNvml(*lacking)
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    yield fake


def test_figures_of_all_gpus_are_added_up(monkeypatch):
    with gpus(monkeypatch) as nvml:
        found = Gpus()
        assert found.sample() == {"gpu_percent": 110, "gpu_memory_bytes": 7 * 2**30, "gpu_power_w": 360.5}
        found.close()
        assert nvml.initialized == 0
        assert found.sample() == {}


@pytest.mark.parametrize(
    ("visible", "power"),
    [
        ("0", 300.5),
        ("1", 60.0),
        ("1,0", 360.5),
        ("GPU-bbbb", 60.0),
        ("1,7,0", 60.0),
        ("", None),
    ],
)
def test_only_gpus_that_cuda_sees_count(monkeypatch, visible, power):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with gpus(monkeypatch):
        assert Gpus().sample().get("gpu_power_w") == power


def test_what_a_gpu_does_not_tell_is_left_out(monkeypatch):
    with gpus(monkeypatch, "nvmlDeviceGetPowerUsage", "nvmlDeviceGetUtilizationRates"):
        assert Gpus().sample() == {"gpu_memory_bytes": 7 * 2**30}


@pytest.mark.parametrize("lacking", ["nvmlInit", "nvmlDeviceGetCount"])
def test_without_a_driver_there_are_no_figures_of_gpus(monkeypatch, lacking):
    with gpus(monkeypatch, lacking) as nvml:
        found = Gpus()
        assert found.sample() == {}
        found.close()
        assert nvml.initialized == 0


def test_figures_of_gpus_stand_beside_the_others(monkeypatch):
    lines = []
    with gpus(monkeypatch) as nvml:
        with ResourceSampler(lambda **line: lines.append(line), lambda: 3, interval=0.01):
            wait_until(lambda: lines)
        assert nvml.initialized == 0
    assert lines[0]["gpu_percent"] == 110
    assert {"step", "cpu_percent", "rss_bytes"} < set(lines[0])
