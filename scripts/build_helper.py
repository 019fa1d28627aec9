"""Compiles sysds_resnet/native/helper.cpp when the package is built or installed (hatchling's build hook).

Without a C++ compiler, or on another system than Linux on x86-64, the package is built without it: the engine
then multiplies with OpenBLAS or in Java, and python -m sysds_resnet.doctor says so.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class HelperHook(BuildHookInterface):
    """Puts the library where the engine looks for it on the class path, native/lib/."""

    def initialize(self, version: str, build_data: dict) -> None:
        """Compiles, and makes a wheel that holds the library one for this platform."""
        folder = Path(self.root) / "sysds_resnet" / "native"
        library = folder / "lib" / "libsystemds_openblas-Linux-x86_64.so"
        library.unlink(missing_ok=True)
        if (sys.platform, platform.machine()) != ("linux", "x86_64"):
            return
        compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")
        if compiler is None:
            self.app.display_warning("no C++ compiler: built without the native helper; install g++ for it")
            return
        library.parent.mkdir(exist_ok=True)
        command = [
            *compiler.split(),
            *("-std=c++17", "-O3", "-fPIC", "-shared", "-fopenmp", "-fvisibility=hidden"),
            f"-I{_file('onednn-devel-cpu-gomp', 'dnnl.hpp').parents[2]}",
            str(folder / "helper.cpp"),
            str(_file("onednn-cpu-gomp", "libdnnl.so.3")),
            *("-o", str(library)),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            self.app.display_warning(f"built without the native helper: {done.stderr}")
            return
        build_data["artifacts"].append(f"sysds_resnet/native/lib/{library.name}")
        build_data["pure_python"] = False
        build_data["tag"] = "py3-none-linux_x86_64"


def _file(package: str, name: str) -> Path:
    """Where a package has a file, the shallowest first."""
    found = distribution(package)
    paths = [path for path in found.files if path.name == name]
    return Path(found.locate_file(max(paths, key=lambda path: len(path.parts)))).resolve()
