"""The driver of a Spark cluster, whose JVM serves as the engine's JVM."""

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
    """A Spark session with SystemDS in the driver's JVM.

    Args:
        cluster: The cluster that the session runs on.
        heap: The size of the driver's heap, in bytes.
        multiply: The library and the precision that the engine will multiply with; executors that lack the
            library multiply in Java.
        logs: A folder for the driver's log, which stays there; by default the log is removed by `close`.

    Attributes:
        gateway: The py4j gateway of the driver's JVM.
        process: The driver's JVM; None where spark-submit has started this process from that JVM.
        log: The file to which a JVM that this process starts writes its output and its errors.
        folder: A private folder of this machine; removed by `close`.
        scratch: A private folder inside the cluster's scratch folder; removed by `close`.
        settings: The settings of SystemDS, by name.
        cluster: The cluster that the session runs on.

    Raises:
        UserError: If the session does not start, for the reasons that `ClusterSession` gives, or the driver
            has no SystemDS on its class path.
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
            if on_this_machine(cluster.master):  # elsewhere executors may run as another user
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
        """The session's SparkContext, for jobs in Python."""
        return self._session.spark.sparkContext

    @property
    def workers(self) -> int:
        """The number of micro-batches that are computed at a time."""
        return self.cluster.workers

    @property
    def heap(self) -> int:
        """The share of an executor's heap for each of its cores, in bytes."""
        cluster = self.cluster
        memory = self._heap if local_workers(cluster.master) else cluster.memory
        return memory // cluster.cores

    def describe_jobs(self, name: str) -> None:
        """Names the jobs that this thread starts from now on, for Spark's web pages."""
        self.context.setJobDescription(name)

    def executors_alive(self) -> int:
        """Gives the number of executors that the cluster has started and not lost."""
        return self._session.executors_alive()

    def check_executors(self) -> None:
        """Checks that executors multiply as the driver does; to be called once they have multiplied.

        Raises:
            UserError: If one has not loaded the library: it would take many times as long, and not say so.
        """
        if not self._multiply.library or local_workers(self.cluster.master):
            return
        tasks = range(4 * self.workers)  # so many that each executor gets some of them
        self.describe_jobs("check of the executors")
        found = self.context.parallelize(tasks, len(tasks)).map(_without_library).collect()
        if hosts := sorted(set(filter(None, found))):
            raise UserError(
                f"executors: found {hosts[0]} multiplying in plain Java, expected {self._multiply} as in the "
                "driver; install sysds-resnet in the same place on all machines, or add --blas none"
            )

    def wait_alive(self) -> bool:
        """Tells whether the driver's JVM still runs, after a moment's wait for one that is going down."""
        if self.process is not None:
            return wait_alive(self.process)
        try:
            return self.gateway.jvm.System.nanoTime() > 0
        except (Py4JError, OSError):
            return False

    def crash_file(self) -> None:
        """Gives None: it is up to Spark where a driver that crashes writes its report."""

    def delete(self, folder: str) -> None:
        """Removes a folder that driver and executors share, if it is there."""
        path = self.gateway.jvm.org.apache.hadoop.fs.Path(folder)
        path.getFileSystem(self.context._jsc.hadoopConfiguration()).delete(path, True)

    def close(self) -> None:
        """Ends the session, and its JVM unless spark-submit started it, and removes the private folders."""
        if self._session is not None:
            with contextlib.suppress(Exception):  # of any kind, if the JVM is gone
                self.delete(self.scratch)
            self._session.close()
            self._session = None
        if self.settings:
            shutil.rmtree(self.settings["sysds.localtmpdir"], ignore_errors=True)
        self._folder.close()

    def _adopt(self) -> None:
        """Makes the engine use this session's context instead of one of its own."""
        jvm = self.gateway.jvm
        if not isinstance(jvm.org.apache.sysds.api.mlcontext.MLContext, JavaClass):
            raise UserError(
                "driver: found no SystemDS on its class path, expected its jar; run the line that "
                f"{python_command('spark_command')} prints"
            )
        self._context = jvm.org.apache.sysds.api.mlcontext.MLContext(self._session.spark._jsparkSession)
        jvm.org.apache.sysds.runtime.controlprogram.context.SparkExecutionContext.initSparkContext()
        # The engine names a task's results by the task's number, and the driver's matrices by 0, so the first
        # task of a session, which has the number 0, must not be one of the engine's.
        # https://github.com/apache/systemds/blob/3.4.0-rc2/src/main/java/org/apache/sysds/runtime/controlprogram/parfor/RemoteParForSparkWorker.java
        self.context._jsc.parallelize(jvm.java.util.ArrayList([0])).count()


def _without_library(_: int) -> str | None:
    """Gives this machine's name if the executor's JVM has loaded no BLAS library; it is a task in Python."""
    jvm = next(process for process in psutil.Process().parents() if process.name() == "java")
    loaded = "libsystemds_openblas" in Path(f"/proc/{jvm.pid}/maps").read_text()
    return None if loaded else socket.gethostname()
