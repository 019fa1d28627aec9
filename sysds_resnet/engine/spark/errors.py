"""The errors of Spark jobs, translated into errors that tell users what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from py4j import protocol

from sysds_resnet.engine.spark.cluster import Cluster
from sysds_resnet.errors import EngineDied, OutOfMemory, UserError, error_of

# What is left of an executor whose own heap was full: Java's error, or the exit code of its JVM.
_OUT_OF_MEMORY = r"OutOfMemoryError|exited with code (3|52)\b|exit code:? (3|52)\b"


@contextmanager
def job_errors(cluster: Cluster) -> Iterator[None]:
    """Turns errors of Spark jobs in a `with` block into errors for users, as `explain` makes them."""
    from pyspark.errors import PySparkException

    try:
        yield
    except (protocol.Py4JError, PySparkException) as error:
        cause = error.java_exception if isinstance(error, protocol.Py4JJavaError) else error
        raise explain(str(cause), cluster.memory) from error


def explain(message: str, memory: int) -> UserError:
    """Gives the error to show to the user for a Spark job that failed.

    Args:
        message: The message of Spark's exception.
        memory: The size of each executor's heap, in bytes.
    """
    if found := re.search(r"^sysds_resnet\.errors\.(\w+): (.*)$", message, re.MULTILINE):
        return error_of(found[1], found[2])  # in a task in Python
    if "[SPARK-24819]" in message:
        return EngineDied(
            "executors: found fewer free cores than the run's processes need at the same time, expected all; "
            "ask for fewer --executors or --executor-cores, or free some"
        )
    if re.search(_OUT_OF_MEMORY, message):
        return OutOfMemory(
            f"executors: found heaps of {memory // 2**20}m full, expected enough for the images computed at "
            "a time; give them more with --executor-memory or lower --micro-batch"
        )
    if found := re.search(r'Cannot run program "([^"]+)"', message):
        return UserError(
            f"PYSPARK_PYTHON: found no {found[1]} where executors run, expected the Python of this package "
            "on all machines; install it there, or set PYSPARK_PYTHON to where it is"
        )
    if "local class incompatible" in message:
        return UserError(
            "Spark: found another version on the cluster than pyspark's, expected the same on both; install "
            "the pyspark of the cluster's version"
        )
    if "No space left on device" in message:
        return UserError(
            "executors: found no space left on a disk of theirs, expected room for what they write; make "
            "room, on the disk of the run and in Spark's local folders"
        )
    # the last line of Python's traceback, or Java's last cause
    found = re.findall(r"\n(\w[\w.]*(?:Error|Exception)\b.*)\n\n", message)
    found = found or re.findall(r"^Caused by: (.*)", message, re.MULTILINE)
    found = found or re.findall(r"most recent failure: (?:Lost task \S+ in stage \S+ )?(.*)", message)
    text = " ".join((found[-1] if found else message.split("\n")[0]).split())
    return EngineDied(
        f"Spark: found a job that failed again and again ({text}), expected executors that live and reach "
        "the data; see their logs"
    )
