"""Sessions of Spark on a cluster."""

from __future__ import annotations

import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from uuid import uuid4

from py4j import java_gateway, protocol

from sysds_resnet.engine.cluster import Cluster, cluster_conf
from sysds_resnet.engine.java import find_java
from sysds_resnet.errors import UserError, one_line

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# What SystemDS 3.4 is built with, to the last digit: its jar brings Spark's classes of this version before
# those of pyspark, which refuse to talk to others.
SPARK_VERSION = "3.5.7"
CONNECT_TIMEOUT = 5.0  # seconds
EXECUTORS_TIMEOUT = 120.0


def start_session(cluster: Cluster, conf: Mapping[str, str], log: Path) -> SparkSession:
    """A session whose executors are there.

    Args:
        cluster: Where it runs.
        conf: Of Spark, beside what the cluster says.
        log: Where the driver's JVM writes what it has to say.

    Raises:
        UserError: If pyspark is missing or of another version, there is no Java, or the cluster does not
            answer or give what is asked of it.
    """
    check_pyspark()
    _check_master(cluster.master)
    from pyspark.sql import SparkSession

    os.environ["JAVA_HOME"] = str(find_java().path.resolve().parents[1])
    # where this package is installed; Spark would take what is called python3 on the executors' path
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder = SparkSession.builder.master(cluster.master).appName("sysds_resnet")
    for name, value in {**cluster_conf(cluster), **conf, **cluster.conf}.items():
        builder = builder.config(name, value)
    handler = signal.getsignal(signal.SIGINT)
    try:
        with _output_to(log):
            session = builder.getOrCreate()
    except (protocol.Py4JJavaError, RuntimeError) as error:
        cause = error.java_exception if isinstance(error, protocol.Py4JJavaError) else error
        raise UserError(
            f"master: found no Spark cluster at {cluster.master} ({one_line(cause)}), expected one that "
            "answers; check --master"
        ) from error
    finally:
        _restore_py4j()
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, handler)  # pyspark's own would cancel the step under way
    try:
        _wait_for_executors(session, cluster)
    except BaseException:
        end_session(session)
        raise
    return session


@contextmanager
def spark_session(cluster: Cluster, conf: Mapping[str, str]) -> Iterator[SparkSession]:
    """A session for jobs in Python, which need no engine in the driver."""
    with tempfile.TemporaryDirectory(prefix="sysds_resnet_") as folder:
        session = start_session(cluster, conf, Path(folder) / "jvm.log")
        try:
            yield session
        finally:
            end_session(session)


@contextmanager
def whole_folder(session: SparkSession, path: str) -> Iterator[str]:
    """Gives the name of a folder to write, which gets its own name if all goes well, or else is removed.

    Raises:
        UserError: If there is something of this name.
    """
    jvm = session.sparkContext._jvm
    target = jvm.org.apache.hadoop.fs.Path(path)
    system = target.getFileSystem(session.sparkContext._jsc.hadoopConfiguration())
    if system.exists(target):
        raise UserError(
            f"{path}: found something there, expected nothing; choose another --out, or remove it"
        )
    unfinished = jvm.org.apache.hadoop.fs.Path(f"{path.rstrip('/')}.unfinished-{uuid4().hex}")
    try:
        yield unfinished.toString()
        system.rename(unfinished, target)
    finally:
        system.delete(unfinished, True)


def end_session(session: SparkSession) -> None:
    """Ends a session, and its JVM unless spark-submit started it."""
    from pyspark import SparkContext

    gateway = session.sparkContext._gateway
    process = getattr(gateway, "proc", None)
    session.stop()
    _restore_py4j()
    if process is not None:
        # it would wait for this process to end, and serve no further session well
        gateway.shutdown()
        SparkContext._gateway = SparkContext._jvm = None
        process.stdin.close()
        process.wait()


def executors_alive(session: SparkSession) -> int:
    """How many executors the cluster has given and not lost."""
    context = session.sparkContext
    if context.master.startswith("local"):
        return 1  # the driver itself
    return context._jsc.sc().getExecutorMemoryStatus().size() - 1  # less the driver


def check_pyspark() -> None:
    """Raises a UserError unless pyspark is there in the version that the engine is built for."""
    try:
        found = version("pyspark")
    except PackageNotFoundError:
        found = "none"
    if found != SPARK_VERSION:
        raise UserError(
            f"pyspark: found {found}, expected {SPARK_VERSION} with Scala 2.12, which SystemDS is built for; "
            "run pip install 'sysds-resnet[spark]'"
        )


def _restore_py4j() -> None:
    """pyspark puts a function of its own into py4j that other gateways of the process fail with."""
    java_gateway.get_return_value = protocol.get_return_value


def _check_master(master: str) -> None:
    """Spark itself takes a minute to give up a master that is not there."""
    for part in urlsplit(master).netloc.split(",") if master.startswith("spark://") else []:
        place = urlsplit(f"//{part}")
        try:
            socket.create_connection((place.hostname, place.port or 7077), CONNECT_TIMEOUT).close()
            return
        except (OSError, ValueError) as error:
            reason = one_line(error)
    if master.startswith("spark://"):
        raise UserError(
            f"master: found none at {master} ({reason}), expected a Spark master that listens there; check "
            "--master, or start one"
        )


def _wait_for_executors(session: SparkSession, cluster: Cluster) -> None:
    deadline = time.monotonic() + EXECUTORS_TIMEOUT
    while True:
        try:
            found = executors_alive(session)
        except protocol.Py4JJavaError as error:
            reason = one_line(error.java_exception)
            raise UserError(
                f"master: found that {cluster.master} ended the application ({reason}), expected executors; "
                "see its log"
            ) from error
        if found >= cluster.executors:
            return
        if time.monotonic() > deadline:
            raise UserError(
                f"executors: found {found} of {cluster.executors} with {cluster.cores} cores and "
                f"{cluster.memory // 2**20}m each after {EXECUTORS_TIMEOUT:.0f} seconds, expected all; ask "
                f"{cluster.master} for less"
            )
        time.sleep(0.2)


@contextmanager
def _output_to(path: Path) -> Iterator[None]:
    """Has processes that are started meanwhile write to a file; pyspark's JVM would write to the terminal."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(1), os.dup(2)]
    with open(path, "ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        for descriptor, number in zip(kept, (1, 2), strict=True):
            os.dup2(descriptor, number)
            os.close(descriptor)
