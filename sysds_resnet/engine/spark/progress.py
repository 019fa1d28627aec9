"""A progress bar for jobs on a Spark cluster."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tqdm import tqdm

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

INTERVAL = 0.5  # seconds


@contextmanager
def progress(spark: SparkSession, name: str) -> Iterator[None]:
    """Shows how many tasks of the jobs started in a `with` block are done, if there is a terminal."""
    tracker = spark.sparkContext.statusTracker()
    done, group = threading.Event(), f"sysds_resnet {name}"

    def show() -> None:
        with tqdm(unit="task", desc=name, disable=None) as bar:
            while not done.wait(INTERVAL):
                stages = [
                    tracker.getStageInfo(stage)
                    for job in tracker.getJobIdsForGroup(group)
                    for stage in tracker.getJobInfo(job).stageIds
                ]
                stages = [stage for stage in stages if stage is not None]
                bar.total = sum(stage.numTasks for stage in stages)
                bar.update(sum(stage.numCompletedTasks for stage in stages) - bar.n)

    spark.sparkContext.setJobGroup(group, name)
    thread = threading.Thread(target=show, name="sysds-resnet-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
