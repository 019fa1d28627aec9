"""The choice of what multiplies matrices: the package's native helper, OpenBLAS, or the engine's own Java."""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sysds_resnet.engine.jvm.environment import instruction_limit
from sysds_resnet.engine.jvm.folders import find_loadable

Precision = Literal["double", "single", "bf16", "tf32"]
Blas = Literal["auto", "openblas", "none"]

INSTALL_HINT = "apt-get install libopenblas0-pthread libgomp1"
LIBRARY = "libopenblas.so"  # the name that the engine loads; only development packages have it
# The engine takes the first lib/libsystemds_openblas-Linux-x86_64.so on the class path.
HELPER_FOLDER = Path(__file__).resolve().parents[1] / "native"
# Beside the package: what scripts/build_wheels.sh adds to a wheel that is to run on all distributions.
BUNDLED = Path(__file__).resolve().parents[3] / "sysds_resnet.libs"


@dataclass(frozen=True)
class Multiply:
    """The library and the precision that matrices are multiplied with.

    Attributes:
        precision: The precision of multiplies. On the CPU, everything else is computed in double.
        library: The library that the engine loads; None for its own Java.
        native: Whether the package's native helper stands between the engine and the library.
        note: The reason why this is not what was asked for, or an empty text.
        gpu: The name of the GPU that multiplies, and computes all else in the precision (FP32 for TF32);
            empty for the CPU.
    """

    precision: Precision
    library: Path | None
    native: bool
    note: str = ""
    gpu: str = ""

    def __str__(self) -> str:
        name = {"double": "FP64", "single": "FP32", "bf16": "bf16", "tf32": "TF32"}[self.precision]
        if self.gpu:
            return f"{name} on {self.gpu}" + (f" ({self.note})" if self.note else "")
        by = "oneDNN" if self.native else "OpenBLAS" if self.library else "plain Java"
        return f"{name} by {by}" + (f" ({self.note})" if self.note else "")


def choose(precision: Precision, blas: Blas, own_jvm: bool) -> Multiply:
    """Gives the fastest way to multiply in a precision, or else in the next higher one that is available.

    Args:
        precision: The precision that is asked for.
        blas: "auto" for any library, "openblas" for no native helper, "none" for Java.
        own_jvm: Whether this package chooses the class path and the JVM's folder: the native helper must be
            on the one, and be loaded from the other.
    """
    reason = ""
    if precision == "tf32":
        precision, reason = "single", "TF32 needs a GPU"
    if own_jvm and blas != "none":
        folder, problem = find_loadable()
        if folder is None:
            return Multiply("double", None, False, problem)
    if precision != "double" and blas == "auto":
        problem = helper_problem() if own_jvm else "it needs a JVM of our own"
        if problem is None:
            return _by_helper(precision, reason)
        reason = f"no native helper: {problem}"
    elif precision == "bf16":
        reason = "bf16 needs the native helper"
    library = find_openblas() if blas != "none" else None
    if library is None:
        if blas != "none" and not reason:
            reason = f"found no OpenBLAS; install it: {INSTALL_HINT}"
        if precision != "double" and not reason:
            reason = "single needs OpenBLAS or the native helper"
        return Multiply("double", None, False, reason)
    return Multiply("double" if precision == "double" else "single", library, False, reason)


def _by_helper(precision: Precision, reason: str) -> Multiply:
    limit, may_bf16 = instruction_limit()
    if precision == "bf16" and not has_bf16():
        precision, reason = "single", "bf16 needs a CPU with AVX512-BF16"
    elif precision == "bf16" and not may_bf16:
        precision, reason = "single", f"{limit} forbids bf16; unset it"
    elif limit and not reason:
        reason = f"{limit} holds oneDNN back; unset it"
    return Multiply(precision, onednn(), True, reason)


def on_gpu(precision: Precision, gpu: str) -> Multiply:
    """Gives what the GPU of this name multiplies with: TF32 in place of bf16, which only CPUs have here."""
    note = "bf16 is for CPUs" if precision == "bf16" else ""
    return Multiply("tf32" if note else precision, None, False, note, gpu)


def find_openblas() -> Path | None:
    """Gives the path of the machine's OpenBLAS library, or None.

    The engine's own helper asks the loader for libopenblas.so.0, so only a library that the loader
    finds by that name counts; it needs OpenMP's libgomp.so.1 as well. Intel's MKL is never taken: the
    helper was linked against MKL 2019 and a modern one ends the JVM with an undefined symbol.
    """
    if os.uname().machine != "x86_64":
        return None  # SystemDS's jar has no native helper for other processors
    try:
        for name in ("libopenblas.so.0", "libgomp.so.1"):
            ctypes.CDLL(name)
    except OSError:
        return None
    with open("/proc/self/maps") as maps:
        for line in maps:
            path = line.split(maxsplit=5)[-1].strip()
            if os.path.basename(path).startswith("libopenblas"):
                return Path(path)
    return None


def helper_problem() -> str | None:
    """Gives the reason why the native helper (engine/native/helper.cpp) cannot be used, or None."""
    if os.uname().machine != "x86_64":
        return "it is for Linux on x86-64"
    library = helper_library()
    if library is None:
        try:
            reason = (HELPER_FOLDER / "lib" / "why-not.txt").read_text().strip()  # by scripts/build_helper.py
        except OSError:
            return "it was not compiled; install g++, then sysds-resnet again"
        return f"it was not compiled: {reason}"
    try:
        for path in (*openmp(), onednn(), library):  # each needs those before it, by name
            ctypes.CDLL(str(path))
    except OSError as error:
        return f"it does not load: {error}; install sysds-resnet again"
    return None


def helper_library() -> Path | None:
    """Gives the path of the compiled native helper, or None."""
    return next((HELPER_FOLDER / "lib").glob("*.so"), None)


def has_bf16() -> bool:
    """Tells whether this CPU multiplies bf16 in hardware."""
    try:
        return " avx512_bf16" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False


def onednn() -> Path:
    """Gives the path of the oneDNN library that the native helper is linked against, which lies beside it."""
    return HELPER_FOLDER / "lib" / "libdnnl.so.3"  # by scripts/build_helper.py


def openmp() -> list[Path]:
    """Gives the path of the OpenMP library that the package brings for oneDNN and the native helper.

    There is none where the two use the system's libgomp.so.1, as after an installation from source.
    """
    return sorted(BUNDLED.glob("libgomp-*.so*"))
