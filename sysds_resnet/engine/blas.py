"""Finding OpenBLAS for the engine's matrix multiplies."""

import ctypes
import ctypes.util
import os
from pathlib import Path

INSTALL_HINT = "apt-get install libopenblas0-pthread libgomp1"


def find_openblas() -> Path | None:
    """The machine's OpenBLAS library, or None.

    The engine's native helper asks the loader for libopenblas.so.0, so only a library that the loader
    finds by that name counts; it needs OpenMP's libgomp.so.1 as well. Intel's MKL is never taken: the
    helper was linked against MKL 2019 and a modern one ends the JVM with an undefined symbol.
    """
    if os.uname().machine != "x86_64":
        return None  # the jar has no native helper for other processors
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
