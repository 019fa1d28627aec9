"""Sessions of Spark: what a run takes of a cluster, and errors that say what is wrong with it."""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from uuid import uuid4

from py4j import java_gateway, protocol

from sysds_resnet.engine.java import find_java
from sysds_resnet.errors import OutOfMemory, UserError, one_line

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# What SystemDS 3.4 is built with, to the last digit: its jar brings Spark's classes of this version before
# those of pyspark, which refuse to talk to others.
SPARK_VERSION = "3.5.7"
# What is left of an executor whose heap was full: Java's error, a code that a JVM ended with, or that the
# engine looks for a matrix that was broadcast, and taken away by the collector, in a file of the driver's.
_OUT_OF_MEMORY = r"OutOfMemoryError|exited with code (3|52)\b|exit code:? (3|52)\b|temp\d+ does not exist on"
CONNECT_TIMEOUT = 5.0  # seconds
EXECUTORS_TIMEOUT = 120.0


@dataclass(frozen=True)
class Cluster:
    """A Spark cluster, and what a run takes of it.

    Attributes:
        master: Spark's URL: spark://HOST:PORT, yarn, k8s://..., local[N].
        executors: How many to wait for, and to ask for where that can be asked for.
        scratch: A folder that driver and executors share: a path, or a URL such as hdfs://... or s3a://...
        cores: Of each executor; each computes micro-batches of its own.
        memory: Of each executor's heap, in bytes.
        conf: More of Spark's settings.
    """

    master: str
    executors: int
    scratch: str
    cores: int = 1
    memory: int = 4 * 2**30
    conf: Mapping[str, str] = field(default_factory=dict)

    @property
    def workers(self) -> int:
        """How many tasks run at a time."""
        return self.executors * self.cores

    def __str__(self) -> str:
        cores = f"{self.cores} core{'s' * (self.cores > 1)}"
        if local_workers(self.master):
            return f"Spark {self.master} with {cores}"
        executors = f"{self.executors} executor{'s' * (self.executors > 1)} with {cores}"
        return f"Spark {self.master}, {executors} and heap {self.memory / 2**30:.1f} GiB each"


def local_path(name: str) -> str:
    """A URL of a local file as a path: the engine does not find the parts of matrices under file: URLs.

    https://github.com/apache/systemds/blob/3.4.0-rc2/src/main/java/org/apache/sysds/runtime/io/IOUtilFunctions.java
    """
    return name.removeprefix("file:").replace("//", "/") if name.startswith("file:") else name


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


def cluster_conf(cluster: Cluster) -> dict[str, str]:
    """Spark's settings for what a run takes of a cluster."""
    conf = {
        "spark.executor.instances": str(cluster.executors),
        "spark.executor.cores": str(cluster.cores),
        "spark.cores.max": str(cluster.workers),
        "spark.executor.memory": f"{cluster.memory // 2**20}m",
        "spark.ui.showConsoleProgress": "false",
    }
    if on_this_machine(cluster.master):
        conf["spark.driver.host"] = "127.0.0.1"
    return conf


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
def job_errors(cluster: Cluster) -> Iterator[None]:
    """Turns errors of jobs into those that users see."""
    from pyspark.errors import PySparkException

    try:
        yield
    except (protocol.Py4JError, PySparkException) as error:
        cause = error.java_exception if isinstance(error, protocol.Py4JJavaError) else error
        raise explain(str(cause), cluster.memory) from error


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


def qualified(name: str) -> str:
    """A path for Spark, which would take one without a scheme for one of its default file system."""
    return name if "://" in name or name.startswith("file:") else Path(name).expanduser().resolve().as_uri()


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


def local_workers(master: str) -> int | None:
    """How many tasks run at a time where the driver is all there is; None for a cluster."""
    found = re.fullmatch(r"local(?:\[(\d+|\*)(?:,\d+)?\])?", master)
    if not found:
        return None
    return len(os.sched_getaffinity(0)) if found[1] == "*" else int(found[1] or 1)


def on_this_machine(master: str) -> bool:
    """Whether driver and executors are on one machine for sure."""
    return master.startswith(("local", "spark://127.0.0.1:", "spark://localhost:"))


def explain(message: str, memory: int) -> UserError:
    """What a Spark job that failed means to the user.

    Args:
        message: Of Spark's exception.
        memory: Of each executor's heap, in bytes.
    """
    if found := re.search(r"^sysds_resnet\.errors\.\w+: (.*)$", message, re.MULTILINE):
        return UserError(found[1])  # raised in a task in Python
    if re.search(_OUT_OF_MEMORY, message):
        return OutOfMemory(
            f"executors: found heaps of {memory // 2**20}m full, expected enough for the images computed at "
            "a time; give them more with --executor-memory or lower --micro-batch"
        )
    if "No space left on device" in message:
        return UserError(
            "scratch: found no space left on its device, expected room for a step's images and gradients; "
            "make room or choose another --scratch"
        )
    # the last line of Python's traceback, or Java's last cause
    found = re.findall(r"\n(\w[\w.]*(?:Error|Exception)\b.*)\n\n", message)
    found = found or re.findall(r"^Caused by: (.*)", message, re.MULTILINE)
    found = found or re.findall(r"most recent failure: (?:Lost task \S+ in stage \S+ )?(.*)", message)
    text = " ".join((found[-1] if found else message.split("\n")[0]).split())
    return UserError(
        f"Spark: found a job that failed again and again ({text}), expected executors that live and reach "
        "the data; see their logs"
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
