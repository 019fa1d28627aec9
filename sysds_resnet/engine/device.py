"""What an engine computes on: one protocol for the CPU, here, and for GPUs (gpu/gpus.py)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Protocol

import numpy as np
from py4j.java_gateway import JavaGateway, JavaObject
from py4j.protocol import Py4JError, Py4JJavaError

from sysds_resnet.engine.jvm.classes import hidden
from sysds_resnet.engine.program import Place, Program
from sysds_resnet.engine.transfer import Transfer, call, uncycle
from sysds_resnet.engine.values import GETTERS, Value, is_list

Result = JavaObject | float | int | str


class Device(Protocol):
    """What programs of an engine are compiled for, and what runs them, one at a time."""

    def accelerates(self, place: Place) -> bool:
        """Whether programs of a place are compiled for a GPU."""
        ...

    def start(self) -> None:
        """Is called once, when programs can be compiled."""
        ...

    def compiling(self, accelerated: bool) -> AbstractContextManager[None]:
        """Has the engine compile what is compiled meanwhile for a GPU, or for the CPU."""
        ...

    def install(self, program: JavaObject, on_cpu: JavaObject) -> None:
        """Puts what functions of DML are on a GPU into a program that was compiled for one.

        Args:
            program: The compiled program.
            on_cpu: The same compiled for the CPU, where some functions stay.
        """
        ...

    def send(self, array: np.ndarray) -> JavaObject:
        """Copies a 2-D array of numbers to where programs take it from soonest."""
        ...

    def take(self, matrix: JavaObject) -> JavaObject:
        """What a list holds of a matrix that `send` gave."""
        ...

    def upload(self, matrices: JavaObject) -> None:
        """Copies a matrix of a list, or the data of a list, to where programs compute."""
        ...

    def free(self, lists: Sequence[JavaObject], keep: Sequence[JavaObject]) -> None:
        """Frees what lists hold that the JVM's garbage collector does not see.

        Args:
            lists: Handles that are not used any more.
            keep: Handles whose matrices stay, should they also be in `lists`.
        """
        ...

    def run(self, script: JavaObject, inputs: Mapping[str, Value], program: Program) -> dict[str, Result]:
        """Runs a prepared script of a program, and gives its outputs."""
        ...


class Cpu:
    """The processors that the engine's JVM may use.

    Args:
        gateway: Of the JVM.
        transfer: Copies arrays into it.
        named: Whether the gateway gives its threads the name that the engine asks for, see `run`.
    """

    def __init__(self, gateway: JavaGateway, transfer: Transfer, named: bool) -> None:
        self._jvm, self._transfer, self._named = gateway.jvm, transfer, named

    def accelerates(self, place: Place) -> bool:
        """Never."""
        return False

    def start(self) -> None:
        """Nothing is left to do."""

    def compiling(self, accelerated: bool) -> AbstractContextManager[None]:
        """The engine compiles for the CPU unless it is told otherwise."""
        return nullcontext()

    def install(self, program: JavaObject, on_cpu: JavaObject) -> None:
        """Nothing: no program was compiled for a GPU."""

    def send(self, array: np.ndarray) -> JavaObject:
        """Copies it into the JVM, as doubles."""
        return self._transfer.send(array)

    def take(self, matrix: JavaObject) -> JavaObject:
        """The matrix itself."""
        return matrix

    def upload(self, matrices: JavaObject) -> None:
        """Nothing: all matrices are in the JVM's heap."""

    def free(self, lists: Sequence[JavaObject], keep: Sequence[JavaObject]) -> None:
        """Nothing: the garbage collector sees all of them."""

    def run(self, script: JavaObject, inputs: Mapping[str, Value], program: Program) -> dict[str, Result]:
        """See `Device`."""
        if not self._named:
            # Operators share a thread pool only if their thread's name contains "main" (PrivateGateway.java).
            self._jvm.Thread.currentThread().setName("main")
        try:
            return self._run(script, inputs, program)
        except Py4JJavaError:
            with suppress(Py4JError):
                script.clearParameters()
            raise

    def _run(self, script: JavaObject, inputs: Mapping[str, Value], program: Program) -> dict[str, Result]:
        variables = hidden(script, "_vars")
        sent = {name: self.send(v) if isinstance(v, np.ndarray) else v for name, v in inputs.items()}
        for name, value in sent.items():
            if is_list(value):
                # or what is in it is taken away once the program has used it
                if program.place in ("workers", "cluster"):
                    call(value, "enableCleanup", False)
                variables.put(name, value)
            elif isinstance(value, JavaObject):
                script.setMatrix(name, value, False)
            else:
                script.setScalar(name, value)
        with self._on_spark() if program.place == "cluster" else nullcontext():
            results = script.executeScript()
        script.clearParameters()
        values = {name: GETTERS[kind](results, name) for name, kind in program.outputs.items()}
        uncycle(results, *(value for value in sent.values() if isinstance(value, JavaObject)))
        return values

    @contextmanager
    def _on_spark(self) -> Iterator[None]:
        """Lets what is executed meanwhile use Spark; it was compiled not to, but for loops that say so."""
        sysds = self._jvm.org.apache.sysds
        modes = sysds.common.Types.ExecMode
        sysds.api.DMLScript.setGlobalExecMode(modes.HYBRID)
        try:
            yield
        finally:
            sysds.api.DMLScript.setGlobalExecMode(modes.SINGLE_NODE)
