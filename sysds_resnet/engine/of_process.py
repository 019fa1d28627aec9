"""The engines that a process keeps: one for all objects that ask for the same options."""

from __future__ import annotations

import atexit

from sysds_resnet.engine.jvm.multiply import Precision
from sysds_resnet.engine.session import Engine
from sysds_resnet.system.forks import opening

_engines: dict[str, Engine] = {}  # by their options


def engine_of_process(
    precision: Precision = "double", heap: int | str | None = None, threads: int | None = None
) -> Engine:
    """Gives the engine of this process that has these options, which is opened when it is first asked for.

    It is for everybody who asks, in any thread, so that nobody closes it; it ends with the process. If its
    JVM has ended, another engine takes its place, which has nothing of what was in the first one. A process
    that is forked from this one has engines of its own.

    Args:
        precision: The precision of matrix multiplies.
        heap: The size of the JVM's heap.
        threads: How many threads the JVM computes with.

    Raises:
        UserError: If `Engine` refuses an option, or the JVM does not start.
    """
    options = repr((precision, heap, threads))
    with opening:  # rather than a lock of this module, which another thread could hold at a fork
        engine = _engines.get(options)
        if engine is None or not engine.usable:
            if engine is not None:
                engine.close()
            _engines[options] = engine = Engine(precision, heap, threads=threads)
        return engine


@atexit.register
def _close() -> None:
    for engine in _engines.values():
        engine.close()
