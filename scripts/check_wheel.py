"""Checks a wheel, and the package that was installed from it, for scripts/build_wheels.sh.

    python scripts/check_wheel.py WHEEL

It is run by the Python of an environment that the wheel was installed in. It exits with code 1 and one line
if the wheel has too much or too little in it, or if the engine does not multiply as it can with this wheel.
"""

from __future__ import annotations

import sys
import sysconfig
import warnings
import zipfile
from fnmatch import fnmatch
from pathlib import Path

import sysds_resnet
from sysds_resnet.engine import Engine
from sysds_resnet.engine.jvm import multiply

HEAP = 512 * 2**20
EVERY_WHEEL = (
    "sysds_resnet/dml/train.*",
    "sysds_resnet/py.typed",
    "sysds_resnet-*.dist-info/licenses/LICENSE",
    "sysds_resnet-*.dist-info/licenses/licenses/onednn/THIRD-PARTY-PROGRAMS",
)
LIBRARIES = (
    "sysds_resnet/engine/native/lib/libsystemds_openblas-Linux-x86_64.so",
    "sysds_resnet/engine/native/lib/libdnnl.so.3",
    "sysds_resnet.libs/libgomp-*.so.*",
)
NOWHERE = ("tests/*", "benchmarks/*", "scripts/*", "docs/*", "*.pyc", "*.cpp", "*/native/*.h")


def check_files(names: list[str], helper: bool) -> None:
    """Checks which files a wheel contains.

    Raises:
        SystemExit: If there is one too many, or one is missing.
    """
    for pattern in (*EVERY_WHEEL, *(LIBRARIES if helper else ())):
        found = [name for name in names if fnmatch(name, pattern)]
        _expect(len(found) == 1, "files", f"{len(found)} of {pattern}", "one")
    libraries = [name for name in names if fnmatch(name, "*.so*")]
    expected = len(LIBRARIES) if helper else 0
    _expect(
        len(libraries) == expected, "files", f"the libraries {', '.join(libraries)}", f"{expected} of them"
    )
    unwanted = [name for name in names if any(fnmatch(name, pattern) for pattern in NOWHERE)]
    _expect(not unwanted, "files", ", ".join(unwanted), "none of them")


def check_engine(helper: bool) -> list[str]:
    """Checks what the engine multiplies with, and gives the libraries that its JVM has loaded for that.

    Raises:
        SystemExit: If it is not what this wheel brings.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about a helper that this wheel is not meant to have
        engine = Engine("single", heap=HEAP)
    with engine:
        engine.run("print(sum(matrix(1, 99, 99) %*% matrix(1, 99, 99)))", {})
        wanted = "FP32 by the native helper" if helper else "no native helper"
        _expect(engine.multiply.native == helper, "engine", engine.multiply, wanted)
        loaded = loaded_libraries(Path(f"/proc/{engine._owned.process.pid}/maps").read_text())
    if helper:
        expected = sorted(map(str, [*multiply.openmp(), multiply.onednn()]))
        _expect(loaded == expected, "engine", f"{', '.join(loaded)} in the JVM", ", ".join(expected))
    return loaded


def loaded_libraries(maps: str) -> list[str]:
    """Gives the paths of a process's libraries of oneDNN and of OpenMP, from its file of maps in /proc."""
    paths = {line.split(maxsplit=5)[5].strip() for line in maps.splitlines() if "/" in line}
    names = ("libdnnl*", "libgomp*", "libomp*", "libiomp*")
    return sorted(path for path in paths if any(fnmatch(Path(path).name, name) for name in names))


def _expect(right: bool, what: str, found: object, expected: object) -> None:
    if not right:
        sys.exit(f"{what}: found {found}, expected {expected}")


def main() -> None:
    """Checks the wheel that the first argument names."""
    wheel = Path(sys.argv[1])
    helper = "manylinux" in wheel.name
    package = Path(sysds_resnet.__file__).parent
    installed = Path(sysconfig.get_path("platlib"))
    _expect(package.parent.samefile(installed), "package", package, f"one in {installed}")
    check_files(zipfile.ZipFile(wheel).namelist(), helper)
    for path in check_engine(helper):
        print(f"loaded:  {path}")


if __name__ == "__main__":
    main()
