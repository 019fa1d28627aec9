"""Compiles the native helper when the package is built or installed (hatchling's build hook).

Its source is sysds_resnet/engine/native/helper.cpp.

CXX names the compiler, by default g++ or c++; CXXFLAGS and LDFLAGS are added to what is needed. It must be
GCC: oneDNN's threads are those of GCC's OpenMP, and must be the helper's. Where that fails, or on another
system than Linux on x86-64, the package is built without the helper: the engine then multiplies with OpenBLAS
or in Java, and python -m sysds_resnet.doctor says why.
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

LIBRARY = "libsystemds_openblas-Linux-x86_64.so"  # what the engine looks for on the class path, in lib/
REASON = "why-not.txt"  # beside it, if it could not be made: what the doctor says
FLAGS = ("-std=c++17", "-O3", "-fPIC", "-shared", "-fopenmp", "-fvisibility=hidden")
# Loads both as the engine does; with another OpenMP beside oneDNN's, each would have threads of its own.
LOAD = """
import ctypes, sys
for name in sys.argv[1:]:
    ctypes.CDLL(name)
other = {"libomp", "libiomp5"} & {line.split("/")[-1].split(".")[0] for line in open("/proc/self/maps")}
sys.exit(f"error: it was linked to {other.pop()}, not to GCC's OpenMP" if other else 0)
"""


class NotCompiled(Exception):
    """The helper cannot be made here; the message is one line that says why, and what to do."""


class HelperHook(BuildHookInterface):
    """Puts the library where the engine looks for it on the class path, native/lib/."""

    def initialize(self, version: str, build_data: dict) -> None:
        """Compiles, and makes a wheel that holds the library one for this platform."""
        if self.target_name != "wheel" or (sys.platform, platform.machine()) != ("linux", "x86_64"):
            return
        native = Path(self.root) / "sysds_resnet" / "engine" / "native"
        self._folder = tempfile.TemporaryDirectory(prefix="sysds_resnet_")
        made = Path(self._folder.name) / LIBRARY
        try:
            compile_helper(native / "helper.cpp", made)
        except NotCompiled as problem:
            self.app.display_warning(f"built without the native helper: {problem}")
            made = made.with_name(REASON)
            made.write_text(f"{problem}\n")
        try:
            _replace(made, native / "lib")
            build_data["artifacts"].append(f"sysds_resnet/engine/native/lib/{made.name}")
        except OSError as error:  # the source is read-only; a wheel can have it all the same
            if version == "editable":
                self.app.display_warning(f"built without the native helper: {native}: {error.strerror}")
                return
            build_data["force_include"][str(made)] = f"sysds_resnet/engine/native/lib/{made.name}"
        if made.name == LIBRARY:
            build_data["pure_python"] = False
            build_data["tag"] = "py3-none-linux_x86_64"

    def finalize(self, version: str, build_data: dict, artifact_path: str) -> None:
        """Removes what was compiled, which is in the wheel now."""
        if hasattr(self, "_folder"):
            self._folder.cleanup()


def compile_helper(source: Path, library: Path, flags: tuple[str, ...] = FLAGS) -> None:
    """Compiles engine/native/helper.cpp into a library, and checks that it loads.

    Raises:
        NotCompiled: If there is no compiler that does.
    """
    try:
        onednn = _file("onednn-cpu-gomp", "libdnnl.so.3")
        headers = _file("onednn-devel-cpu-gomp", "dnnl.hpp").parents[2]
    except PackageNotFoundError as error:
        raise NotCompiled(f"found no package {error.name}; install it") from error
    own = shlex.split(os.environ.get("CXXFLAGS", ""))
    _run(
        [
            *_compiler(),
            *flags,
            *own,
            f"-I{headers}",
            str(source),
            str(onednn),
            *shlex.split(os.environ.get("LDFLAGS", "")),
            "-o",
            str(library),
        ]
    )
    # not in this process, which it might end
    _run([sys.executable, "-c", LOAD, str(onednn), str(library)])


def _compiler() -> list[str]:
    named = shlex.split(os.environ.get("CXX", ""))
    found = [path for path in map(shutil.which, ("g++", "c++")) if path]
    if not named and not found:
        raise NotCompiled("found no C++ compiler; install g++, then sysds-resnet again")
    compiler = named or found[:1]
    if "clang" in _run([*compiler, "--version"]):
        raise NotCompiled(
            f"found clang as {compiler[0]}, expected GCC; install g++, or set CXX to it, and install again"
        )
    return compiler


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    except OSError as error:
        raise NotCompiled(f"{command[0]}: {error.strerror}; check CXX") from error
    if done.returncode:
        lines = (done.stderr + done.stdout).split("\n")
        told = [line for line in lines if "error" in line.lower()] or [line for line in lines if line.strip()]
        reason = told[0].strip() if told else f"code {done.returncode}"
        raise NotCompiled(f"{Path(command[0]).name} failed: {reason}")
    return done.stdout


def _replace(made: Path, folder: Path) -> None:
    """Puts a file into native/lib/, once it is whole: a process may have the one before open."""
    folder.mkdir(exist_ok=True)
    unfinished = folder / f".{made.name}"
    shutil.copy(made, unfinished)
    for name in (LIBRARY, REASON):
        (folder / name).unlink(missing_ok=True)
    unfinished.rename(folder / made.name)


def _file(package: str, name: str) -> Path:
    """Where a package has a file, the deepest of this name."""
    found = distribution(package)
    paths = [path for path in found.files or () if path.name == name]
    return Path(found.locate_file(max(paths, key=lambda path: len(path.parts)))).resolve()
