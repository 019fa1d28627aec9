"""Spark sessions on a cluster."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from py4j import protocol

from sysds_resnet.engine.jvm.folders import PrivateFolder
from sysds_resnet.engine.jvm.process import LOG_FILE
from sysds_resnet.engine.spark.checks import check_start, executors_python, submitted
from sysds_resnet.engine.spark.cluster import Cluster, cluster_conf, cluster_environment
from sysds_resnet.engine.spark.conf import combined, with_defaults
from sysds_resnet.engine.spark.launch import Found, changed_environment, launch
from sysds_resnet.errors import UserError, one_line

if TYPE_CHECKING:
    from subprocess import Popen

    from pyspark import SparkContext
    from pyspark.sql import SparkSession

EXECUTORS_TIMEOUT = 55.0  # seconds


class ClusterSession:
    """A Spark session whose executors have started; `close` leaves nothing of it in this process.

    Args:
        cluster: The cluster to start the session on.
        conf: Settings of Spark in addition to those that follow from `cluster`.
        folder: A private folder, for the file by which settings reach the driver's JVM.
        log: The file to which that JVM's output and errors are appended.

    Attributes:
        spark: The session as pyspark has it.
        process: The driver's JVM; None where spark-submit has started this process from that JVM.

    Raises:
        UserError: If pyspark is missing or of another version, there is no Java, this process has a session
            already, the JVM does not start, or the cluster does not answer or give what is asked of it.
    """

    def __init__(self, cluster: Cluster, conf: Mapping[str, str], folder: Path, log: Path) -> None:
        check_start(cluster)
        own = {"spark.master": cluster.master, "spark.app.name": "sysds_resnet"}
        settings = combined({**cluster_conf(cluster), **conf, **own}, cluster.conf)
        self._found = Found()
        self.process: Popen | None = None
        self._context: SparkContext | None = None
        self.spark: SparkSession | None = None
        try:
            self._start(cluster, settings, folder, log)
            self._found.restore_process()
            self._wait_for_executors(cluster)
        except BaseException:
            self.close()
            raise

    def executors_alive(self) -> int:
        """Gives the number of executors that the cluster has started and not lost."""
        context = self.spark.sparkContext
        if context.master.startswith("local") and not context.master.startswith("local-cluster"):
            return 1  # the driver itself
        return context._jsc.sc().getExecutorMemoryStatus().size() - 1  # without the driver

    def close(self) -> None:
        """Ends the session, and its JVM unless spark-submit started it."""
        from pyspark import SparkContext

        if self.spark is not None:
            with contextlib.suppress(protocol.Py4JError, OSError):  # the JVM may be gone
                self.spark.stop()
        if self._context is not None:
            self._context.stop()  # again: without its JVM, `spark.stop` does not get far
        self.spark = self._context = None
        if self.process is not None:
            # or it would wait for the end of this process, and it serves no further session well
            SparkContext._gateway.shutdown()
            self.process.stdin.close()
            self.process.wait()
            self.process = None
        if not submitted():
            self._found.restore()
        self._found.restore_process()

    def _start(self, cluster: Cluster, settings: Mapping[str, str], folder: Path, log: Path) -> None:
        from pyspark import SparkConf, SparkContext
        from pyspark.errors import PySparkException
        from pyspark.sql import SparkSession

        if not submitted():
            gateway = launch(with_defaults(settings), cluster_environment(cluster), folder, log)
            SparkContext._gateway, SparkContext._jvm = gateway, gateway.jvm
            self.process = gateway.proc
            settings = {}  # the JVM has already read them
        else:
            settings = {name: with_defaults(settings)[name] for name in settings}
        conf = SparkConf().setAll(settings.items())
        python = {"PYSPARK_PYTHON": executors_python(), "SPARK_CONNECT_MODE_ENABLED": None}
        try:
            with changed_environment(python):
                self._context = SparkContext(conf=conf)
                self.spark = SparkSession(self._context)
        except (protocol.Py4JError, PySparkException) as error:
            raise UserError(
                f"master: found no session of Spark at {cluster.master} ({_cause(error)}), expected one; "
                "mend what it says, or check --master, --heap and --spark-conf"
            ) from error

    def _wait_for_executors(self, cluster: Cluster) -> None:
        deadline = time.monotonic() + EXECUTORS_TIMEOUT
        while True:
            try:
                found = self.executors_alive()
            except protocol.Py4JJavaError as error:
                raise UserError(
                    f"master: found that {cluster.master} ended the application ({_cause(error)}), expected "
                    "executors; see its log"
                ) from error
            if found >= cluster.executors:
                return
            if time.monotonic() > deadline:
                raise UserError(
                    f"executors: found {found} of {cluster.executors} with {cluster.cores} cores and "
                    f"{cluster.memory // 2**20}m each after {EXECUTORS_TIMEOUT:.0f} seconds, expected all; "
                    f"ask {cluster.master} for less"
                )
            time.sleep(0.2)


@contextmanager
def spark_session(cluster: Cluster, conf: Mapping[str, str]) -> Iterator[SparkSession]:
    """Gives a session for jobs in Python, which need no engine in the driver."""
    with closing(PrivateFolder()) as folder:
        session = ClusterSession(cluster, conf, folder.path, folder.path / LOG_FILE)
        with closing(session):
            yield session.spark


def _cause(error: Exception) -> str:
    """Gives the text of the innermost exception in Java, or the error's own text."""
    if not isinstance(error, protocol.Py4JJavaError):
        return one_line(error)
    cause = error.java_exception
    while cause.getCause() is not None:
        cause = cause.getCause()
    return " ".join(cause.toString().split())


@contextmanager
def whole_folder(session: SparkSession, path: str) -> Iterator[str]:
    """Gives a temporary name for a folder to write, which becomes `path` on success, and else is removed.

    Raises:
        UserError: If there is something at `path`.
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
