"""GPUs in software (software_gpu/), under the names of NVIDIA's libraries.

With them the engine's GPU backend runs on any machine, through JCuda's own natives: all but the driver,
NVIDIA's libraries and the engine's kernels, which are done anew. Their memory is limited, is NaN until it is
written, and belongs to one of them.
"""

import os
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest

from sysds_resnet.engine import Engine
from sysds_resnet.engine.gpu import cuda

SOURCE = Path(__file__).with_name("software_gpu")
# with the run time, which JCuda's library of that name contains
NAMES = [cuda.DRIVER, *cuda.LIBRARIES, "libJCudaRuntime-12.6.0-linux-x86_64.so"]


def build(folder):
    """Builds them into a folder for LD_LIBRARY_PATH."""
    library = folder / "libsoftware_gpu.so"
    flags = ["-std=c++17", "-O1", "-shared", "-fPIC"]
    subprocess.run(["c++", *flags, "-o", str(library), *map(str, SOURCE.glob("*.cpp"))], check=True)
    for name in NAMES:
        (folder / name).symlink_to(library.name)


@contextmanager
def installed(folder, count=1, memory=4 * 2**30, log=os.devnull):
    """Meanwhile this process and its children have as many GPUs, with as much memory each.

    What is copied to them and from them is noted in a log, see software_gpu/runtime.cpp. This changes the
    whole process: it is for the body of a test, never for the life of a fixture that several tests share. An
    engine that is started meanwhile keeps its GPUs (`engine_on`).
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cuda, "library_folders", lambda: [folder])
        patch.setenv("LD_LIBRARY_PATH", str(folder), prepend=os.pathsep)  # for processes that train
        patch.setenv("SOFTWARE_GPU_COUNT", str(count))
        patch.setenv("SOFTWARE_GPU_MEMORY", str(memory))
        patch.setenv("SOFTWARE_GPU_LOG", str(log))
        cuda.probe.cache_clear()
        try:
            yield
        finally:
            cuda.probe.cache_clear()


@contextmanager
def engine_on(folder, precision, count, heap=2**30, **options):
    """An engine on as many GPUs, in a process that has none before and after its start.

    Args:
        folder: Of the libraries, see `build`.
        precision, heap: Of the engine.
        count: Of the GPUs.
        options: Of `installed`.
    """
    with installed(folder, count, **options):
        engine = Engine(precision, heap=heap, gpus=range(count))
    with engine:
        yield engine
