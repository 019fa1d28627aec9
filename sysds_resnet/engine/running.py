"""Running compiled DML programs in the engine's JVM."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass

import numpy as np
from py4j.java_gateway import JavaGateway, JavaObject
from py4j.protocol import Py4JError, Py4JJavaError

from sysds_resnet.engine.compiler import Kind, Programs
from sysds_resnet.engine.gpu.gpus import Gpus
from sysds_resnet.engine.jvm.classes import hidden
from sysds_resnet.engine.transfer import call, uncycle
from sysds_resnet.engine.values import GETTERS, Value, declared_type, is_list

_SMALL = 2**13  # numbers in an array that may go to the JVM as text


@dataclass(frozen=True)
class How:
    """How a program runs; the fields are the arguments of `Engine.run`."""

    fused: bool
    distributed: bool
    parallel: bool
    on_gpu: bool
    hold: bool


class Running:
    """What runs programs, one at a time: a prepared script has one place for its variables.

    Args:
        gateway: Of the engine's JVM.
        programs: Its compiled programs.
        gpus: What it computes on, if not the CPU.
        from_numpy: Copies an array into the JVM, as `Engine.from_numpy`.
        send: Copies an array for the GPU, as `Engine.send`.
        named: Whether the gateway gives its threads the name that the engine asks for, see `run`.
    """

    def __init__(
        self,
        gateway: JavaGateway,
        programs: Programs,
        gpus: Gpus | None,
        from_numpy: Callable[[np.ndarray], JavaObject],
        send: Callable[[np.ndarray], JavaObject],
        named: bool,
    ) -> None:
        self._jvm, self._programs, self._gpus = gateway.jvm, programs, gpus
        self._from_numpy, self._send, self._named = from_numpy, send, named

    def run(
        self, program: str, inputs: Mapping[str, Value], outputs: Mapping[str, Kind], how: How
    ) -> dict[str, JavaObject | float | int | str]:
        """As `Engine.run`."""
        types = {name: declared_type(value) for name, value in inputs.items()}
        script = self._programs.prepare(
            program, types, outputs, how.fused, how.distributed, how.parallel, how.on_gpu
        )
        try:
            if self._gpus:
                return self._on_gpus(script, inputs, outputs, how)
            return self._here(script, inputs, outputs, how)
        except Py4JJavaError:
            if not self._gpus:
                with suppress(Py4JError):
                    script.clearParameters()
            raise
        except Py4JError:
            raise
        except BaseException:
            # such as Ctrl-C: the JVM still runs it, with its variables
            self._programs.forget(script)
            raise

    def _on_gpus(
        self, script: JavaObject, inputs: Mapping[str, Value], outputs: Mapping[str, Kind], how: How
    ) -> dict[str, JavaObject | float | int | str]:
        large = {n for n, v in inputs.items() if isinstance(v, np.ndarray) and v.size > _SMALL}
        send = self._send if how.on_gpu else self._from_numpy
        sent = {n: send(v) if n in large else v for n, v in inputs.items()}
        results = self._gpus.run(script, sent, outputs, how.on_gpu, how.hold, everywhere=how.parallel)
        return {
            name: float(value) if kind == "double" else value
            for (name, kind), value in zip(outputs.items(), results, strict=True)
        }

    def _here(
        self, script: JavaObject, inputs: Mapping[str, Value], outputs: Mapping[str, Kind], how: How
    ) -> dict[str, JavaObject | float | int | str]:
        if not self._named:
            # Operators share a thread pool only if their thread's name contains "main" (PrivateGateway.java).
            self._jvm.Thread.currentThread().setName("main")
        variables = hidden(script, "_vars")
        sent = {n: self._from_numpy(v) if isinstance(v, np.ndarray) else v for n, v in inputs.items()}
        for name, value in sent.items():
            if is_list(value):
                # or what is in it is taken away once the program has used it
                if how.distributed or how.parallel:
                    call(value, "enableCleanup", False)
                variables.put(name, value)
            elif isinstance(value, JavaObject):
                script.setMatrix(name, value, False)
            else:
                script.setScalar(name, value)
        with self._spark_context() if how.distributed else nullcontext():
            results = script.executeScript()
        script.clearParameters()
        values = {name: GETTERS[kind](results, name) for name, kind in outputs.items()}
        uncycle(results, *(value for value in sent.values() if isinstance(value, JavaObject)))
        return values

    @contextmanager
    def _spark_context(self) -> Iterator[None]:
        """Lets what is executed meanwhile use Spark; it was compiled not to, but for loops that say so."""
        sysds = self._jvm.org.apache.sysds
        modes = sysds.common.Types.ExecMode
        sysds.api.DMLScript.setGlobalExecMode(modes.HYBRID)
        try:
            yield
        finally:
            sysds.api.DMLScript.setGlobalExecMode(modes.SINGLE_NODE)
