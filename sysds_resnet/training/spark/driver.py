"""A training run on a Spark cluster: a job whose tasks have a process each, and what it shows here."""

from __future__ import annotations

import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sysds_resnet.engine.jvm.memory import heap_of
from sysds_resnet.engine.spark.cluster import Cluster, on_this_machine
from sysds_resnet.engine.spark.conf import driver_memory
from sysds_resnet.engine.spark.errors import job_errors
from sysds_resnet.engine.spark.session import spark_session
from sysds_resnet.report.metrics import FILE_NAME as METRICS_FILE
from sysds_resnet.report.metrics import read_lines
from sysds_resnet.system.console import say
from sysds_resnet.system.urls import absolute
from sysds_resnet.training.processes.job import Job, values_given
from sysds_resnet.training.restarting import Restarts
from sysds_resnet.training.run_folder import OUTPUT_FILE
from sysds_resnet.training.settings import TrainSettings
from sysds_resnet.training.spark.executor import STOP_FILE, WAITING_FOLDER, train_part

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

LOOK_SECONDS = 0.3
BESIDE_HEAP = 2 * 2**30
"""The bytes of memory of an executor beside the heap that computes: of Python, libraries and readers."""


def train_on_cluster(
    settings: TrainSettings, folder: Path, restarts: Restarts, stopped: Callable[[], bool]
) -> bool:
    """Has the executors of a cluster train a run to its end, or until it is stopped.

    Args:
        settings: The settings of the run, with those that were chosen for its data.
        folder: The folder of the run, which all machines see under this path.
        restarts: The decisions about restarts, which are told how far the run is.
        stopped: A function that tells whether the run was asked to stop.

    Returns:
        Whether the run is finished.

    Raises:
        EngineDied: If an executor or a process in one is lost.
        OutOfMemory: If the heap of one was full.
        UserError: If something else goes wrong that the user can mend.
    """
    cluster = settings.cluster()
    folder = folder.resolve()
    changes, restarts.changes = restarts.changes, []
    job = Job(
        rank=0,
        size=cluster.executors,
        folder=str(folder),
        values=_for_other_machines(settings),
        heap=cluster.memory,
        threads=cluster.cores,
        host="127.0.0.1" if on_this_machine(cluster.master) else "",
        port=settings.sum_port,
        patience=settings.peer_timeout,
        changes=changes,
    )
    work = partial(train_part, job, settings.device != "cpu")
    stop, waiting = folder / STOP_FILE, folder / WAITING_FOLDER
    _clear(stop, waiting)
    try:
        with spark_session(cluster, _conf(settings, cluster)) as spark, _followed(folder / OUTPUT_FILE):
            done = _started(spark, cluster, work)
            while True:
                with suppress(NotYet):
                    return all(done.result(timeout=LOOK_SECONDS))
                if stopped() and not stop.exists():
                    stop.touch()
    finally:
        _clear(stop, waiting)
        with suppress(OSError):  # there are no lines yet
            restarts.reached(max((line["step"] for line in read_lines(folder / METRICS_FILE)), default=0))


def _started(
    spark: SparkSession, cluster: Cluster, work: Callable[[Iterator[int]], Iterator[bool]]
) -> Future[list[bool]]:
    """Starts the job in a thread of its own, so that this one hears of Ctrl-C."""
    context, size = spark.sparkContext, cluster.executors
    context.setJobDescription("training")

    def run() -> list[bool]:
        with job_errors(cluster):
            return context.parallelize(range(size), size).barrier().mapPartitions(work).collect()

    threads = ThreadPoolExecutor(1, thread_name_prefix="sysds-resnet-spark")
    try:
        return threads.submit(run)
    finally:
        threads.shutdown(wait=False)


def _clear(stop: Path, waiting: Path) -> None:
    """Removes what driver and tasks have told each other in the run folder."""
    stop.unlink(missing_ok=True)
    shutil.rmtree(waiting, ignore_errors=True)


def _for_other_machines(settings: TrainSettings) -> dict[str, object]:
    """Gives the settings of a run, with paths that mean the same in other working directories."""
    values = values_given(settings) | {"dataset": settings.located(elsewhere=True)}
    for name in ("init_from", "class_weights"):
        if (value := values.get(name)) is not None and value != "balanced":
            values[name] = absolute(value)
    return values


def _conf(settings: TrainSettings, cluster: Cluster) -> dict[str, str]:
    """Gives Spark's settings for a job whose tasks each have a whole executor and a JVM of their own."""
    return {
        **({} if settings.heap is None else driver_memory(heap_of(settings.heap))),
        "spark.task.cpus": str(cluster.cores),
        "spark.executor.memory": "1g",
        "spark.executor.memoryOverhead": f"{(cluster.memory + BESIDE_HEAP) // 2**20}m",
        "spark.dynamicAllocation.enabled": "false",
        "spark.speculation": "false",
        # too few executors are told within half a minute
        "spark.scheduler.barrier.maxConcurrentTasksCheck.interval": "5s",
        "spark.scheduler.barrier.maxConcurrentTasksCheck.maxFailures": "6",
    }


@contextmanager
def _followed(path: Path) -> Iterator[None]:
    """Prints what another machine appends to a file during a `with` block."""
    with open(path, "ab+") as file:
        file.seek(0, 2)
        done = threading.Event()

        def follow() -> None:
            while True:
                ending = done.wait(LOOK_SECONDS)
                if data := file.read():
                    say(data.decode(errors="replace").rstrip("\n"), sys.stdout)
                if ending:
                    return

        thread = threading.Thread(target=follow, name="sysds-resnet-output", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
