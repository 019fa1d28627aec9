"""What of CUDA this machine has: the driver, and the libraries that the engine's GPU backend loads."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sysds_resnet.engine.jvm.folders import find_loadable
from sysds_resnet.errors import UserError
from sysds_resnet.system.command_lines import install_command

DRIVER = "libcuda.so.1"
# Those of JCuda 12.6, which is in the engine's extra jar, and the packages that bring them.
LIBRARIES = {
    "libcublas.so.12": "nvidia-cublas-cu12",
    "libcusparse.so.12": "nvidia-cusparse-cu12",
    "libcusolver.so.11": "nvidia-cusolver-cu12",
    "libcusolverMg.so.11": "nvidia-cusolver-cu12",
    "libnvrtc.so.12": "nvidia-cuda-nvrtc-cu12",
    "libcudnn.so.9": "nvidia-cudnn-cu12",
}
# Descriptions of the settings that name GPUs.
DEVICE = "cpu, gpu, cuda:N, cuda:N,M for several, or auto for a GPU where one can be used."
GPUS = "How many GPUs, from the first on; means device gpu."
# In a process of its own: libraries that are loaded stay, and a broken one may end the process.
_PROBE = """
import ctypes, json, sys
found = {}
for name in sys.argv[1:]:
    try:
        library = ctypes.CDLL(name)
        found[name] = ""
    except OSError as error:
        found[name] = str(error)
    if not found[name] and name == "libcuda.so.1":
        count = ctypes.c_int()
        code = library.cuInit(0) or library.cuDeviceGetCount(ctypes.byref(count))
        found["code"], found["count"] = code, count.value
    print(json.dumps(found), flush=True)
"""


def environment() -> dict[str, str]:
    """This process's environment with the libraries of NVIDIA's packages where the loader finds them."""
    folders = [*map(str, library_folders()), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
    return {**os.environ, "LD_LIBRARY_PATH": os.pathsep.join(folders)}


def library_folders() -> list[Path]:
    """Folders with the libraries of NVIDIA's packages."""
    spec = find_spec("nvidia")
    places = spec.submodule_search_locations if spec else None
    return sorted(folder for place in places or () for folder in Path(place).glob("*/lib") if folder.is_dir())


@cache
def probe() -> dict[str, Any]:
    """Why each library does not load, or nothing; CUDA's "code" for starting up, and the "count" of GPUs.

    What ended the process that loaded it is missing, and all that comes after.
    """
    command = [sys.executable, "-c", _PROBE, DRIVER, *LIBRARIES]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    return json.loads(lines[-1]) if lines else {}


def problem() -> str | None:
    """Why no GPU can be used here, or None."""
    found = probe()
    if reason := found.get(DRIVER, "it ends the process that loads it"):
        return f"no NVIDIA driver ({reason}); install one for CUDA 12 or later"
    if found["code"] or not found["count"]:
        return f"the NVIDIA driver finds no GPU (CUDA's code {found['code']}); see what nvidia-smi says"
    folder, why = find_loadable()  # JCuda's libraries are in a jar
    if folder is None:
        return why
    for name, package in LIBRARIES.items():
        if reason := found.get(name, "it ends the process that loads it"):
            return f"{package} is missing or broken ({reason}); run {install_command('gpu')}"
    return None


def gpu_count() -> int:
    """GPUs that the driver shows this process; 0 without a driver."""
    return probe().get("count", 0)


def chosen_device(device: str, gpus: int | None) -> tuple[str, int | None]:
    """What the settings of a command mean: a number of GPUs, where no device is named, means GPUs."""
    return ("gpu" if gpus and device == "cpu" else device), gpus


def named_gpus(device: str, count: int | None = None) -> tuple[int, ...]:
    """The numbers of the GPUs that a device means, whether they are there or not; none for the CPU.

    Args:
        device: "cpu", "gpu" or "auto" for the first GPU, "cuda:N" for another, "cuda:N,M" for several.
        count: Of the GPUs to take, from the first on, where the device does not say which.

    Raises:
        UserError: If it means none.
    """
    if device == "cpu":
        return ()
    match = re.fullmatch(r"cuda:(\d+(?:,\d+)*)", device)
    if device not in ("gpu", "auto") and not match:
        raise UserError(f"device: found {device}, expected cpu, gpu, cuda:N, cuda:N,M or auto; choose one")
    numbers = tuple(map(int, match[1].split(","))) if match else tuple(range(count or 1))
    if len(set(numbers)) < len(numbers):
        raise UserError(f"device: found {device}, expected each GPU once; leave out the others")
    return numbers


def choose_gpus(device: str, count: int | None = None) -> tuple[int, ...]:
    """`named_gpus`, if they can be used; for "auto" none if not.

    Raises:
        UserError: If there is no such device, or it cannot be used.
    """
    numbers = named_gpus(device, count)
    if not numbers or (device == "auto" and problem() is not None):
        return ()
    if reason := problem():
        raise UserError(f"device: found {device}, but {reason}")
    there = gpu_count()
    if max(numbers) >= there:
        found = device if device.startswith("cuda:") else f"{len(numbers)} GPUs"
        raise UserError(f"device: found {found}, expected at most cuda:{there - 1}; choose another")
    return numbers
