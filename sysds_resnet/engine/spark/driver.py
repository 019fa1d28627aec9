"""The driver of a Spark cluster as the engine's JVM."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from py4j.java_gateway import JavaClass
from py4j.protocol import Py4JError

from sysds_resnet.engine.jvm.folders import PrivateFolder
from sysds_resnet.engine.jvm.multiply import Multiply
from sysds_resnet.engine.jvm.process import LOG_FILE, wait_alive
from sysds_resnet.engine.spark.cluster import Cluster, local_path, local_workers, on_this_machine
from sysds_resnet.engine.spark.conf import driver_conf, engine_settings, executor_conf
from sysds_resnet.engine.spark.session import ClusterSession
from sysds_resnet.errors import UserError
from sysds_resnet.system.command_lines import python_command

if TYPE_CHECKING:
    from py4j.java_gateway import JavaGateway
    from pyspark import SparkContext


class SparkDriver:
    """A Spark session whose JVM has SystemDS in it.

    Args:
        cluster: Where it runs.
        heap: Bytes of the driver's heap.
        multiply: What the engine will multiply with; executors that lack it multiply in Java.
        logs: A folder for the driver's log, which stays there; by default it goes.

    Attributes:
        gateway: The py4j gateway of the driver.
        process: Its JVM; None where spark-submit has started this process from its own.
        log: What its JVM writes to its standard error.
        folder: A private folder of this machine; removed by `close`.
        scratch: A private folder of the cluster; removed by `close`.
        settings: Of the engine, by name.
        cluster: As given.

    Raises:
        UserError: As of `ClusterSession`.
    """

    def __init__(self, cluster: Cluster, heap: int, multiply: Multiply, logs: Path | None = None) -> None:
        self.cluster, self._heap, self._multiply = cluster, heap, multiply
        self._folder = PrivateFolder()
        self.folder = self._folder.path
        self._session: ClusterSession | None = None
        self.scratch = f"{local_path(cluster.scratch)}/{self.folder.name}"
        self.settings: dict[str, str] = {}
        try:
            self.settings = engine_settings(self.scratch, multiply)
            if on_this_machine(cluster.master):  # elsewhere executors may be another user's
                os.mkdir(self.settings["sysds.localtmpdir"], 0o700)
            conf = driver_conf(heap, multiply) | executor_conf(cluster, multiply)
            self.log = (logs or self.folder) / LOG_FILE
            self._session = ClusterSession(cluster, conf, self.folder, self.log)
            self.gateway: JavaGateway = self.context._gateway
            self.process: subprocess.Popen | None = self._session.process
            self._adopt()
        except BaseException:
            self.close()
            raise

    @property
    def context(self) -> SparkContext:
        """Spark's, for jobs in Python."""
        return self._session.spark.sparkContext

    @property
    def workers(self) -> int:
        """How many micro-batches are computed at a time."""
        return self.cluster.workers

    @property
    def heap(self) -> int:
        """Bytes of an executor's heap for each of its cores."""
        cluster = self.cluster
        memory = self._heap if local_workers(cluster.master) else cluster.memory
        return memory // cluster.cores

    def describe_jobs(self, name: str) -> None:
        """Gives the jobs that this thread starts a name, for Spark's web pages."""
        self.context.setJobDescription(name)

    def executors_alive(self) -> int:
        """How many executors the cluster has given and not lost."""
        return self._session.executors_alive()

    def check_executors(self) -> None:
        """Checks that executors multiply as the driver does, once they have done so.

        Raises:
            UserError: If one has not loaded the library: it would take many times as long, and say nothing.
        """
        if not self._multiply.library or local_workers(self.cluster.master):
            return
        tasks = range(4 * self.workers)  # so that each executor has some of them
        self.describe_jobs("check of the executors")
        found = self.context.parallelize(tasks, len(tasks)).map(_without_library).collect()
        if hosts := sorted(set(filter(None, found))):
            raise UserError(
                f"executors: found {hosts[0]} multiplying in plain Java, expected {self._multiply} as in the "
                "driver; install sysds-resnet in the same place on all machines, or add --blas none"
            )

    def wait_alive(self) -> bool:
        """Whether the driver's JVM is still running, after giving one that is going down a moment."""
        if self.process is not None:
            return wait_alive(self.process)
        try:
            return self.gateway.jvm.System.nanoTime() > 0
        except (Py4JError, OSError):
            return False

    def crash_file(self) -> None:
        """Where the driver writes when it crashes is Spark's to say."""

    def delete(self, folder: str) -> None:
        """Removes a folder that the cluster shares, if it is there."""
        path = self.gateway.jvm.org.apache.hadoop.fs.Path(folder)
        path.getFileSystem(self.context._jsc.hadoopConfiguration()).delete(path, True)

    def close(self) -> None:
        """Ends the session and its JVM."""
        if self._session is not None:
            with contextlib.suppress(Exception):  # whatever a JVM says that is gone
                self.delete(self.scratch)
            self._session.close()
            self._session = None
        if self.settings:
            shutil.rmtree(self.settings["sysds.localtmpdir"], ignore_errors=True)
        self._folder.close()

    def _adopt(self) -> None:
        """Has the engine use this session's context in place of making one."""
        jvm = self.gateway.jvm
        if not isinstance(jvm.org.apache.sysds.api.mlcontext.MLContext, JavaClass):
            raise UserError(
                "driver: found no SystemDS on its class path, expected its jar; run the line that "
                f"{python_command('spark_command')} prints"
            )
        self._context = jvm.org.apache.sysds.api.mlcontext.MLContext(self._session.spark._jsparkSession)
        jvm.org.apache.sysds.runtime.controlprogram.context.SparkExecutionContext.initSparkContext()
        # The engine names a task's results by the task's number and the driver's matrices by 0, so that the
        # first task of a session must not be one of its own.
        # https://github.com/apache/systemds/blob/3.4.0-rc2/src/main/java/org/apache/sysds/runtime/controlprogram/parfor/RemoteParForSparkWorker.java
        self.context._jsc.parallelize(jvm.java.util.ArrayList([0])).count()


def _without_library(_: int) -> str | None:
    """The name of this machine if the JVM of its executor has not loaded a BLAS library; a task in Python."""
    jvm = next(process for process in psutil.Process().parents() if process.name() == "java")
    loaded = "libsystemds_openblas" in Path(f"/proc/{jvm.pid}/maps").read_text()
    return None if loaded else socket.gethostname()
