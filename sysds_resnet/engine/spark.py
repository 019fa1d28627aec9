"""The driver of a Spark cluster as the engine's JVM."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from sysds_resnet.engine.blas import HELPER_FOLDER, Multiply
from sysds_resnet.engine.jvm import (
    class_path,
    engine_jars,
    jvm_options,
    last_line,
    shared_memory,
    wait_alive,
)
from sysds_resnet.engine.spark_session import (
    Cluster,
    end_session,
    executors_alive,
    local_workers,
    start_session,
)
from sysds_resnet.errors import UserError

if TYPE_CHECKING:
    from py4j.java_gateway import JavaGateway
    from pyspark import SparkContext
    from pyspark.sql import SparkSession


# Settings for Hadoop in the executors.
EXECUTOR_FOLDER = Path(__file__).parent / "executor"


class SparkDriver:
    """A Spark session whose JVM has SystemDS in it.

    Args:
        cluster: Where it runs.
        heap: Bytes of the driver's heap.
        multiply: What the engine will multiply with; executors that lack it multiply in Java.

    Attributes:
        gateway: The py4j gateway of the driver.
        process: Its JVM.
        folder: A private folder of this machine; removed by `close`.
        scratch: A private folder of the cluster; removed by `close`.
        settings: Of the engine, by name.
        cluster: As given.

    Raises:
        UserError: As of `start_session`.
    """

    def __init__(self, cluster: Cluster, heap: int, multiply: Multiply) -> None:
        self.cluster, self._heap, self._multiply = cluster, heap, multiply
        self.folder = Path(tempfile.mkdtemp(prefix="sysds_resnet_", dir=shared_memory()))
        self._session: SparkSession | None = None
        self.scratch = f"{local_path(cluster.scratch)}/{self.folder.name}"
        self.settings = {
            "sysds.scratch": f"{self.scratch}/engine",
            "sysds.caching.bufferpoollimit": "70",  # per cent of the heap; what is beyond goes to disk
        }
        try:
            if multiply.library:
                self._link(multiply.library)
            self._session = start_session(cluster, _conf(cluster, heap, multiply), self.folder / "jvm.log")
            self.gateway: JavaGateway = self._session.sparkContext._gateway
            self.process: subprocess.Popen = self.gateway.proc
            self._adopt()
        except BaseException:
            self.close()
            raise

    @property
    def context(self) -> SparkContext:
        """Spark's, for jobs in Python."""
        return self._session.sparkContext

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
        return executors_alive(self._session)

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
        return wait_alive(self.process)

    def log_tail(self) -> str:
        """The last line of what the driver's JVM wrote, for error messages."""
        return last_line(self.folder / "jvm.log")

    def delete(self, folder: str) -> None:
        """Removes a folder that the cluster shares, if it is there."""
        path = self.gateway.jvm.org.apache.hadoop.fs.Path(folder)
        path.getFileSystem(self.context._jsc.hadoopConfiguration()).delete(path, True)

    def close(self) -> None:
        """Ends the session and its JVM."""
        if self._session is not None:
            with contextlib.suppress(Exception):  # whatever a JVM says that is gone
                self.delete(self.scratch)
            end_session(self._session)
            self._session = None
        shutil.rmtree(self.folder, ignore_errors=True)

    def _link(self, library: Path) -> None:
        """Puts the library where executors look for it, under the name that the engine asks for."""
        native = Path(self.scratch) / "native"
        native.mkdir(parents=True, exist_ok=True)
        (native / "libopenblas.so").symlink_to(library)
        self.settings |= {"sysds.native.blas": "openblas", "sysds.native.blas.directory": str(native)}

    def _adopt(self) -> None:
        """Has the engine use this session's context in place of making one."""
        jvm = self.gateway.jvm
        self._context = jvm.org.apache.sysds.api.mlcontext.MLContext(self._session._jsparkSession)
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


def local_path(name: str) -> str:
    """A URL of a local file as a path: the engine does not find the parts of matrices under file: URLs.

    https://github.com/apache/systemds/blob/3.4.0-rc2/src/main/java/org/apache/sysds/runtime/io/IOUtilFunctions.java
    """
    return name.removeprefix("file:").replace("//", "/") if name.startswith("file:") else name


def _conf(cluster: Cluster, heap: int, multiply: Multiply) -> dict[str, str]:
    """Spark's settings for SystemDS in driver and executors."""
    # Spark itself gives the most that a heap may have
    driver, executor = (
        [option for option in jvm_options(size) if not option.startswith("-Xmx")]
        for size in (heap, cluster.memory)
    )
    executor = [option for option in executor if not option.startswith("-Dlog4j")]
    path = str(HELPER_FOLDER) if multiply.native else ""
    return {
        "spark.jars": ",".join(map(str, engine_jars())),
        "spark.driver.memory": f"{heap // 2**20}m",
        "spark.driver.extraClassPath": os.pathsep.join(filter(None, [path, class_path()])),
        "spark.driver.extraJavaOptions": " ".join(driver),
        "spark.driver.maxResultSize": "0",
        "spark.executor.extraClassPath": os.pathsep.join(filter(None, [path, str(EXECUTOR_FOLDER)])),
        # a core of the executor is a thread of the engine, whatever the machine has
        "spark.executor.extraJavaOptions": " ".join([*executor, f"-XX:ActiveProcessorCount={cluster.cores}"]),
        "spark.executorEnv.OMP_NUM_THREADS": "1",
        "spark.executorEnv.OPENBLAS_NUM_THREADS": "1",
        "spark.executorEnv.OMP_WAIT_POLICY": "passive",
        "spark.executorEnv.SYSDS_RESNET_PRECISION": multiply.precision,
        "spark.broadcast.compress": "false",  # random digits do not get smaller
    }
