"""What this machine has of CUDA: the driver, and the libraries that the engine's GPU backend loads."""

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
# The libraries that JCuda 12.6 in the engine's extra jar loads, and the packages that contain them.
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
# This runs in a process of its own: a loaded library stays loaded, and a broken one may end the process.
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
    """Gives this process's environment, in which the loader also finds the libraries of NVIDIA's packages."""
    folders = [*map(str, library_folders()), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
    return {**os.environ, "LD_LIBRARY_PATH": os.pathsep.join(folders)}


def library_folders() -> list[Path]:
    """Gives the folders with the libraries of NVIDIA's packages."""
    spec = find_spec("nvidia")
    places = spec.submodule_search_locations if spec else None
    return sorted(folder for place in places or () for folder in Path(place).glob("*/lib") if folder.is_dir())


@cache
def probe() -> dict[str, Any]:
    """Says why each library does not load, or "", with CUDA's "code" of starting and the "count" of GPUs.

    If a library ends the process that loads it, it is missing here, and so are all that come after it.
    """
    command = [sys.executable, "-c", _PROBE, DRIVER, *LIBRARIES]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    lines = done.stdout.splitlines()
    return json.loads(lines[-1]) if lines else {}


def problem() -> str | None:
    """Says why no GPU can be used here; gives None if one can."""
    found = probe()
    if reason := found.get(DRIVER, "it ends the process that loads it"):
        return f"no NVIDIA driver ({reason}); install one for CUDA 12 or later"
    if found["code"] or not found["count"]:
        return f"the NVIDIA driver finds no GPU (CUDA's code {found['code']}); see what nvidia-smi says"
    folder, why = find_loadable()  # JCuda copies its libraries from its jar there
    if folder is None:
        return why
    for name, package in LIBRARIES.items():
        if reason := found.get(name, "it ends the process that loads it"):
            return f"{package} is missing or broken ({reason}); run {install_command('gpu')}"
    return None


def gpu_count() -> int:
    """Gives the number of GPUs that the driver shows this process; 0 without a driver."""
    return probe().get("count", 0)


def chosen_device(device: str, gpus: int | None) -> tuple[str, int | None]:
    """Completes the settings of a command: a number of GPUs without a named device means device "gpu"."""
    return ("gpu" if gpus and device == "cpu" else device), gpus


def named_gpus(device: str, count: int | None = None) -> tuple[int, ...]:
    """Gives the numbers of the GPUs that a device means, whether they are there or not; none for the CPU.

    Args:
        device: "cpu", "gpu" or "auto" for the first GPU, "cuda:N" for another, "cuda:N,M" for several.
        count: The number of GPUs to take, from the first on, if the device does not say which; by default 1.

    Raises:
        UserError: If it is no name of a device, or names a GPU twice.
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
    """Gives the GPUs that a device means, as `named_gpus` does; none for "auto" if no GPU can be used.

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
