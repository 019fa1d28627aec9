"""Spark's settings for SystemDS, in the driver and on executors."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from uuid import uuid4

from sysds_resnet.engine.jvm.folders import loading_options
from sysds_resnet.engine.jvm.multiply import HELPER_FOLDER, LIBRARY, Multiply, openmp
from sysds_resnet.engine.jvm.options import class_path, engine_jars, jvm_options
from sysds_resnet.engine.spark.checks import spark_home
from sysds_resnet.engine.spark.cluster import Cluster, local_path
from sysds_resnet.engine.spark.properties import read_properties
from sysds_resnet.engine.spark.settings_file import library_folder

# A file of settings for Hadoop on executors.
MAPRED_SITE = Path(__file__).parent / "executor" / "mapred-site.xml"
# Settings that are lists, with the separator of their parts: a user's list is added to ours, and does not
# replace it.
_PATHS = {f"spark.{part}.extra{kind}Path" for part in ("driver", "executor") for kind in ("Class", "Library")}
_LISTS = {
    **dict.fromkeys(sorted(_PATHS), os.pathsep),
    **dict.fromkeys(("spark.jars", "spark.files"), ","),
}
_OPTIONS = dict.fromkeys(("spark.driver.extraJavaOptions", "spark.executor.extraJavaOptions"), " ")


def combined(ours: Mapping[str, str], users: Mapping[str, str]) -> dict[str, str]:
    """Joins our settings with the user's, which win; the parts of a user's list come after ours."""
    return {**ours, **users, **_joined(ours, users, _LISTS | _OPTIONS)}


def with_defaults(conf: Mapping[str, str]) -> dict[str, str]:
    """Adds the settings of spark-defaults.conf, which spark-submit reads only if it is given no other file.

    Where `conf` has options for Java, it drops those of the file: they may ask for another garbage collector,
    and a JVM does not start with two.

    Raises:
        UserError: If the file exists and cannot be read.
    """
    path = Path(os.environ.get("SPARK_CONF_DIR") or spark_home() / "conf") / "spark-defaults.conf"
    defaults = read_properties(path) if path.exists() else {}
    return {**defaults, **conf, **_joined(conf, defaults, _LISTS)}


def _joined(first: Mapping[str, str], then: Mapping[str, str], lists: Mapping[str, str]) -> dict[str, str]:
    return {
        name: first[name] + between + then[name]
        for name, between in lists.items()
        if first.get(name) and then.get(name)
    }


def driver_memory(heap: int) -> dict[str, str]:
    """Gives the setting for the size of the driver's heap, in bytes."""
    return {"spark.driver.memory": f"{heap // 2**20}m"}


def driver_conf(heap: int, multiply: Multiply) -> dict[str, str]:
    """Gives the settings with which the driver's JVM must be started.

    Args:
        heap: The size of its heap, in bytes.
        multiply: The library and the precision that the engine will multiply with.
    """
    return {
        **driver_memory(heap),
        "spark.driver.extraClassPath": os.pathsep.join([*_helper(multiply), *_own_spark(), class_path()]),
        "spark.driver.extraJavaOptions": _as_text([*_java_options(heap), *loading_options()]),
    }


def executor_conf(cluster: Cluster, multiply: Multiply) -> dict[str, str]:
    """Gives the settings with which executors are started, and by which files are sent to them.

    Args:
        cluster: The cluster of the executors.
        multiply: The library and the precision that they multiply with.
    """
    options = [option for option in _java_options(cluster.memory) if not option.startswith("-Dlog4j")]
    files = [MAPRED_SITE]
    if multiply.library:
        files.append(library_folder(multiply.library) / LIBRARY)
    if multiply.native:
        files += openmp()  # which that library needs, and finds there
    return {
        "spark.jars": ",".join(path.as_uri() for path in engine_jars()),
        # executors find them in their working folder
        "spark.files": ",".join(path.as_uri() for path in files),
        "spark.executor.extraClassPath": os.pathsep.join([*_helper(multiply), "."]),
        "spark.executor.extraLibraryPath": ".",
        # the engine has a thread for each core of the executor, however many the machine has
        "spark.executor.extraJavaOptions": _as_text([*options, f"-XX:ActiveProcessorCount={cluster.cores}"]),
        "spark.executorEnv.OMP_NUM_THREADS": "1",
        "spark.executorEnv.OPENBLAS_NUM_THREADS": "1",
        "spark.executorEnv.OMP_WAIT_POLICY": "passive",
        "spark.executorEnv.OMP_PROC_BIND": "false",  # or the threads of all tasks would be bound to one core
        "spark.executorEnv.SYSDS_RESNET_PRECISION": multiply.precision,
        "spark.driver.maxResultSize": "0",
        "spark.broadcast.compress": "false",  # the digits of parameters look random, and do not compress
        "spark.broadcast.blockSize": "16m",  # executors fetch one block after the other
    }


def engine_settings(scratch: str, multiply: Multiply) -> dict[str, str]:
    """Gives SystemDS's own settings, by name.

    Args:
        scratch: A folder that driver and executors share.
        multiply: The library and the precision that the engine multiplies with.
    """
    settings = {
        "sysds.scratch": f"{local_path(scratch)}/engine",
        # other users may own the default, /tmp/systemds
        "sysds.localtmpdir": f"{tempfile.gettempdir()}/sysds_resnet_{uuid4().hex}",
        "sysds.caching.bufferpoollimit": "70",  # per cent of the heap; matrices beyond that go to disk
    }
    if multiply.library:
        # executors on other machines find no such folder, and then look into their working folder
        folder = library_folder(multiply.library)
        settings |= {"sysds.native.blas": "openblas", "sysds.native.blas.directory": str(folder)}
    return settings


def _java_options(heap: int) -> list[str]:
    # Spark itself sets the largest size of a heap
    return [option for option in jvm_options(heap, initial=heap) if not option.startswith("-Xmx")]


def _own_spark() -> list[str]:
    """Gives the jars of the running Spark whose classes SystemDS.jar also contains, in its own version."""
    jars = spark_home() / "jars"
    return [
        str(path) for name in ("core", "common-utils") for path in sorted(jars.glob(f"spark-{name}_*.jar"))
    ]


def _as_text(options: Iterable[str]) -> str:
    """Joins options into a text that Spark splits again; quotes those with blanks, quotes or backslashes."""
    return " ".join(
        '"' + re.sub(r'(["\\])', r"\\\1", option) + '"' if re.search(r"[\s\"'\\]", option) else option
        for option in options
    )


def _helper(multiply: Multiply) -> list[str]:
    return [str(HELPER_FOLDER)] if multiply.native else []
