"""Compiles the native helper when the package is built or installed (hatchling's build hook).

Its source is sysds_resnet/engine/native/helper.cpp. The library of oneDNN that it calls is put beside it.

CXX names the compiler, by default g++ or c++; CXXFLAGS and LDFLAGS are added to what is needed. It must be
GCC: oneDNN's threads are those of GCC's OpenMP, and must be the helper's. Where that fails, or on another
system than Linux on x86-64, the package is built without the helper: the engine then multiplies with OpenBLAS
or in Java, and python -m sysds_resnet.doctor says why.

SYSDS_RESNET_HELPER=0 builds without the helper, for all platforms; SYSDS_RESNET_HELPER=1 fails where the
helper cannot be made.
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
ONEDNN = "libdnnl.so.3"  # beside it
REASON = "why-not.txt"  # in their place, if they could not be made: what the doctor says
WANTED = "SYSDS_RESNET_HELPER"  # the variable that says whether there is to be a helper
NOT_WANTED = f"{WANTED}=0, as in the wheel for all platforms; install g++, then sysds-resnet from its source"
# Without fused multiply-adds, each operation rounds, as in DML. Nobody reads flags of exceptions, or errno.
ARITHMETIC = ("-ffp-contract=off", "-fno-trapping-math", "-fno-math-errno")
FLAGS = ("-std=c++17", "-O3", "-fPIC", "-shared", "-fopenmp", "-fvisibility=hidden", *ARITHMETIC)
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
    """Puts the libraries where the engine looks for them on the class path, native/lib/."""

    def initialize(self, version: str, build_data: dict) -> None:
        """Compiles, and makes a wheel that holds the libraries one for this platform."""
        wanted = os.environ.get(WANTED, "")
        if self.target_name != "wheel":
            return
        if wanted != "0" and (sys.platform, platform.machine()) != ("linux", "x86_64"):
            if wanted == "1":
                found = f"{sys.platform} on {platform.machine()}"
                self.app.abort(f"{WANTED}=1: found {found}, expected linux on x86_64; unset it")
            return
        native = Path(self.root) / "sysds_resnet" / "engine" / "native"
        self._folder = tempfile.TemporaryDirectory(prefix="sysds_resnet_")
        made = self._make(native / "helper.cpp", Path(self._folder.name), wanted)
        try:
            _replace(made, native / "lib")
            build_data["artifacts"] += [f"sysds_resnet/engine/native/lib/{path.name}" for path in made]
        except OSError as error:  # the source is read-only; a wheel can have them all the same
            if version == "editable":
                self.app.display_warning(f"built without the native helper: {native}: {error.strerror}")
                return
            for path in made:
                build_data["force_include"][str(path)] = f"sysds_resnet/engine/native/lib/{path.name}"
        if made[0].name == LIBRARY:
            build_data["pure_python"] = False
            build_data["tag"] = "py3-none-linux_x86_64"

    def _make(self, source: Path, folder: Path, wanted: str) -> list[Path]:
        """Makes the files for native/lib/ in a folder: the libraries, or the reason why there are none."""
        library, reason = folder / LIBRARY, folder / REASON
        if wanted == "0":
            reason.write_text(f"{NOT_WANTED}\n")
            return [reason]
        try:
            compile_helper(source, library)
        except NotCompiled as problem:
            if wanted == "1":
                self.app.abort(f"{WANTED}=1: the native helper cannot be made: {problem}")
            self.app.display_warning(f"built without the native helper: {problem}")
            reason.write_text(f"{problem}\n")
            return [reason]
        return [library, library.with_name(ONEDNN)]

    def finalize(self, version: str, build_data: dict, artifact_path: str) -> None:
        """Removes what was compiled, which is in the wheel now."""
        if hasattr(self, "_folder"):
            self._folder.cleanup()


def compile_helper(source: Path, library: Path, flags: tuple[str, ...] = FLAGS) -> None:
    """Compiles engine/native/helper.cpp into a library, puts oneDNN's beside it, and checks that both load.

    Raises:
        NotCompiled: If there is no compiler that does.
    """
    onednn = library.with_name(ONEDNN)
    try:
        shutil.copy(_file("onednn-cpu-gomp", ONEDNN), onednn)
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
            "-Wl,-rpath,$ORIGIN",  # the engine loads oneDNN first; tools that look for it find it there
            *shlex.split(os.environ.get("LDFLAGS", "")),
            "-o",
            str(library),
        ]
    )
    _strip(onednn)
    # not in this process, which it might end
    _run([sys.executable, "-c", LOAD, str(onednn), str(library)])


def _strip(library: Path) -> None:
    """Removes the names of a library's inner functions, a fifth of oneDNN's, which only debuggers read."""
    if program := shutil.which("strip"):
        # a library that keeps its names does as well
        subprocess.run([program, "--strip-unneeded", str(library)], capture_output=True, check=False)


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


def _replace(made: list[Path], folder: Path) -> None:
    """Puts files into native/lib/, each once it is whole: a process may have those before open."""
    folder.mkdir(exist_ok=True)
    unfinished = [(shutil.copy(path, folder / f".{path.name}"), path.name) for path in made]
    for path, name in unfinished:
        path.rename(folder / name)
    for name in {LIBRARY, ONEDNN, REASON} - {path.name for path in made}:
        (folder / name).unlink(missing_ok=True)


def _file(package: str, name: str) -> Path:
    """Where a package has a file, the deepest of this name."""
    found = distribution(package)
    paths = [path for path in found.files or () if path.name == name]
    return Path(found.locate_file(max(paths, key=lambda path: len(path.parts)))).resolve()
