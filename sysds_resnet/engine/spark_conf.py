"""Spark's settings for SystemDS in driver and executors."""

from __future__ import annotations

import os
from pathlib import Path

from sysds_resnet.engine.blas import HELPER_FOLDER, LIBRARY, Multiply
from sysds_resnet.engine.cluster import Cluster, local_path
from sysds_resnet.engine.folders import loading_options
from sysds_resnet.engine.jvm import class_path, engine_jars, jvm_options
from sysds_resnet.engine.settings_file import library_folder

# Settings for Hadoop in the executors.
MAPRED_SITE = Path(__file__).parent / "executor" / "mapred-site.xml"


def driver_conf(heap: int, multiply: Multiply) -> dict[str, str]:
    """What the driver's JVM must be started with.

    Args:
        heap: Bytes of its heap.
        multiply: What the engine will multiply with.
    """
    return {
        "spark.driver.memory": f"{heap // 2**20}m",
        "spark.driver.extraClassPath": os.pathsep.join([*_helper(multiply), class_path()]),
        "spark.driver.extraJavaOptions": " ".join([*_java_options(heap), *loading_options()]),
    }


def executor_conf(cluster: Cluster, multiply: Multiply) -> dict[str, str]:
    """What executors are started with, and what is sent to them.

    Args:
        cluster: Which gives them.
        multiply: What they multiply with.
    """
    options = [option for option in _java_options(cluster.memory) if not option.startswith("-Dlog4j")]
    files = [MAPRED_SITE]
    if multiply.library:
        files.append(library_folder(multiply.library) / LIBRARY)
    return {
        "spark.jars": ",".join(map(str, engine_jars())),
        # executors find them in their working folder
        "spark.files": ",".join(map(str, files)),
        "spark.executor.extraClassPath": os.pathsep.join([*_helper(multiply), "."]),
        "spark.executor.extraLibraryPath": ".",
        # a core of the executor is a thread of the engine, whatever the machine has
        "spark.executor.extraJavaOptions": " ".join([*options, f"-XX:ActiveProcessorCount={cluster.cores}"]),
        "spark.executorEnv.OMP_NUM_THREADS": "1",
        "spark.executorEnv.OPENBLAS_NUM_THREADS": "1",
        "spark.executorEnv.OMP_WAIT_POLICY": "passive",
        "spark.executorEnv.SYSDS_RESNET_PRECISION": multiply.precision,
        "spark.driver.maxResultSize": "0",
        "spark.broadcast.compress": "false",  # random digits do not get smaller
        "spark.broadcast.blockSize": "16m",  # executors ask for one after the other
    }


def engine_settings(scratch: str, multiply: Multiply) -> dict[str, str]:
    """The engine's own settings, by name.

    Args:
        scratch: A folder that driver and executors share.
        multiply: What it multiplies with.
    """
    settings = {
        "sysds.scratch": f"{local_path(scratch)}/engine",
        "sysds.caching.bufferpoollimit": "70",  # per cent of the heap; what is beyond goes to disk
    }
    if multiply.library:
        # executors on other machines find no such folder, and look into their working folder then
        folder = library_folder(multiply.library)
        settings |= {"sysds.native.blas": "openblas", "sysds.native.blas.directory": str(folder)}
    return settings


def _java_options(heap: int) -> list[str]:
    # Spark itself gives the most that a heap may have
    return [option for option in jvm_options(heap) if not option.startswith("-Xmx")]


def _helper(multiply: Multiply) -> list[str]:
    return [str(HELPER_FOLDER)] if multiply.native else []
