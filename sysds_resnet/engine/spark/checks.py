"""Checks that run before a Spark session is started, so that what is missing is reported at once."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from sysds_resnet.engine.spark.cluster import Cluster, on_this_machine
from sysds_resnet.errors import UserError, one_line
from sysds_resnet.system.command_lines import install_command
from sysds_resnet.system.machine import substitute_name

# The version that SystemDS 3.4 is built with. Its jar contains some of Spark's classes in this version, which
# refuse to talk to those of another version: conf.py puts the jars of the running Spark before them.
SPARK_VERSION = "3.5.7"
# A training run and predictions were tried on clusters of the first version, the last and three in between.
SPARK_VERSIONS = tuple(f"3.5.{patch}" for patch in range(10))
CONNECT_TIMEOUT = 5.0  # seconds


def submitted() -> bool:
    """Tells whether spark-submit has started this process, from a JVM that serves as the driver."""
    return "PYSPARK_GATEWAY_PORT" in os.environ


def check_start(cluster: Cluster) -> None:
    """Checks that a Spark session can be started on a cluster.

    Raises:
        UserError: If pyspark is missing or of another version, this process has a session already, the
            system has no name for the user, the environment names another Spark, a Python that is not
            there or no folder of Hadoop's settings for yarn, or no master listens.
    """
    check_pyspark()
    _check_no_session()
    if not submitted():
        _check_user()
        _check_spark_home()
    if on_this_machine(cluster.master):
        _check_python()
    if cluster.master == "yarn" and not {"HADOOP_CONF_DIR", "YARN_CONF_DIR"} & os.environ.keys():
        raise UserError(
            "master: found yarn without HADOOP_CONF_DIR or YARN_CONF_DIR in the environment, expected the "
            "folder of Hadoop's settings, which say where the cluster is; set one"
        )
    _check_master(cluster.master)


def _check_user() -> None:
    """Raises a UserError if the system has no name for this process's user, which Hadoop's login asks for."""
    if (name := substitute_name()) is not None:
        user, group = os.getuid(), os.getgid()
        raise UserError(
            f"user: found no name for the number {user}, expected one, which Spark's driver needs; run as a "
            f"user of this machine, or add to /etc/passwd: {name}:x:{user}:{group}::/tmp:/bin/sh"
        )


def check_pyspark() -> None:
    """Raises a UserError unless pyspark is installed in one of `SPARK_VERSIONS`."""
    found = _pyspark_version()
    if found not in SPARK_VERSIONS:
        raise UserError(
            f"pyspark: found {found}, expected {SPARK_VERSIONS[0]} to {SPARK_VERSIONS[-1]} with Scala 2.12, "
            f"as the cluster has, best {SPARK_VERSION}, which SystemDS is built with; "
            f"run {install_command('spark')}"
        )


def spark_home() -> Path:
    """Gives the folder of the Spark that starts drivers: SPARK_HOME if it is set, or else pyspark's own."""
    given = os.environ.get("SPARK_HOME")
    return Path(given) if given else Path(find_spec("pyspark").origin).parent


def executors_python() -> str:
    """Gives the Python for executors: PYSPARK_PYTHON if it is set, or else the one that runs this process.

    Spark itself would take the python3 on the executors' path.
    """
    return os.environ.get("PYSPARK_PYTHON") or sys.executable


def _pyspark_version() -> str:
    """Gives the version of pyspark, or "none" if it is not installed."""
    try:
        return version("pyspark")
    except PackageNotFoundError:  # Spark's own folder python has a pyspark without metadata
        if find_spec("pyspark") is None:
            return "none"
    import pyspark

    return pyspark.__version__


def _check_no_session() -> None:
    from pyspark import SparkContext

    context = SparkContext._active_spark_context
    if context is not None:
        raise UserError(
            f"engine: found a running Spark session in this process ({context.appName} on {context.master}), "
            "which cannot have two, expected none; stop it first, or do this in a process of its own"
        )


def _check_spark_home() -> None:
    given = os.environ.get("SPARK_HOME")
    if not given:
        return
    names = [path.stem for path in Path(given, "jars").glob("spark-core_*.jar")]
    found = names[0].removeprefix("spark-core_") if names else "no Spark"
    expected = f"2.12-{_pyspark_version()}"
    if found.split("-amzn")[0] != expected:  # Amazon appends this to the versions of its builds
        raise UserError(
            f"SPARK_HOME: found {found} in {given}, expected {expected} (Scala's and Spark's version) as of "
            "pyspark; unset it, and pyspark's own Spark is taken"
        )


def _check_python() -> None:
    """Checks the executors' Python where they run on this machine; on a cluster, their machines have it."""
    if shutil.which(python := executors_python()) is None:
        raise UserError(
            f"PYSPARK_PYTHON: found {python}, expected a Python that can be run here; unset it, or name one"
        )


def _check_master(master: str) -> None:
    """Checks that a standalone master listens; Spark takes a minute to give up one that is not there."""
    for part in urlsplit(master).netloc.split(",") if master.startswith("spark://") else []:
        place = urlsplit(f"//{part}")
        try:
            socket.create_connection((place.hostname, place.port), CONNECT_TIMEOUT).close()
            return
        except (OSError, ValueError) as error:
            reason = one_line(error)
    if master.startswith("spark://"):
        raise UserError(
            f"master: found none at {master} ({reason}), expected a Spark master that listens there; check "
            "--master, or start one"
        )
