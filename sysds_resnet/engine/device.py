"""The devices that an engine computes on: their protocol, and the CPU. GPUs are in gpu/gpus.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from py4j.java_gateway import JavaGateway, JavaObject
from py4j.protocol import Py4JError, Py4JJavaError

from sysds_resnet.engine.jvm.classes import hidden, java_array
from sysds_resnet.engine.operators.classes import new_recycler
from sysds_resnet.engine.operators.templates import Storage
from sysds_resnet.engine.program import Place, Program
from sysds_resnet.engine.transfer import Transfer, call, uncycle
from sysds_resnet.engine.values import GETTERS, Value, is_list
from sysds_resnet.errors import UserError

Result = JavaObject | float | int | str
_NO_GPU = "device: found the CPU, expected GPUs; open an engine with gpus"


@dataclass(frozen=True)
class Operator:
    """The time that instructions of one kind took, in seconds, and how many there were."""

    seconds: float
    count: int


class Device(Protocol):
    """A device that an engine compiles its programs for, and that runs them one at a time."""

    def accelerates(self, place: Place) -> bool:
        """Tells whether programs with this place are compiled for a GPU."""
        ...

    def start(self, storage: Storage) -> None:
        """Prepares the device; called once, as soon as programs can be compiled.

        Args:
            storage: What programs keep activations in.
        """
        ...

    def compiling(self, accelerated: bool) -> AbstractContextManager[None]:
        """Makes the engine compile for a GPU, or for the CPU, until the context ends."""
        ...

    def install(self, program: JavaObject, on_cpu: JavaObject) -> None:
        """Puts the GPU's own versions of some DML functions into a program that was compiled for a GPU.

        Args:
            program: The compiled program.
            on_cpu: The same program compiled for the CPU, from which functions that stay there are taken.
        """
        ...

    def send(self, array: np.ndarray) -> JavaObject:
        """Copies a 2-D array of numbers into the JVM, in the form that programs can use soonest."""
        ...

    def take(self, matrix: JavaObject) -> JavaObject:
        """Gives what a list is to hold for a matrix that `send` gave."""
        ...

    def upload(self, matrices: JavaObject) -> None:
        """Copies a matrix of a list, or all matrices in the data of a list, to the device's memory."""
        ...

    def free(self, lists: Sequence[JavaObject], keep: Sequence[JavaObject]) -> None:
        """Frees the memory of lists that the JVM's garbage collector does not see.

        Args:
            lists: The handles of lists that are not used any more.
            keep: The handles of lists whose matrices stay, even those that are also in `lists`.
        """
        ...

    def recycle(self, lists: Sequence[JavaObject], keep: Sequence[JavaObject]) -> None:
        """Hands the memory of lists in the JVM's heap to what is computed next.

        Args:
            lists: The handles of lists that nobody reads any more, in no thread.
            keep: The handles of lists whose matrices stay, even those that are also in `lists`.
        """
        ...

    def run(self, script: JavaObject, inputs: Mapping[str, Value], program: Program) -> dict[str, Result]:
        """Runs the prepared script of a program, and gives the program's outputs by name."""
        ...

    def operators(self) -> AbstractContextManager[dict[str, Operator]]:
        """Times the engine's instructions on GPUs until the context ends, by name; then the dict is filled.

        Raises:
            UserError: If the device is the CPU.
        """
        ...

    def memory(self) -> tuple[int, int]:
        """Gives the bytes that are free on the first GPU, and the bytes that it has.

        Raises:
            UserError: If the device is the CPU.
        """
        ...


class Cpu:
    """The device of an engine without GPUs: the processors that its JVM may use.

    Args:
        gateway: The py4j gateway of the JVM.
        transfer: The buffer through which arrays are copied into the JVM.
        named: Whether the gateway's threads already have the name with which operators share a thread pool.
    """

    def __init__(self, gateway: JavaGateway, transfer: Transfer, named: bool) -> None:
        self._gateway, self._transfer, self._named = gateway, transfer, named
        self._recycles = False
        self._recycler: JavaObject | None = None

    def accelerates(self, place: Place) -> bool:
        """Gives False: no program is compiled for a GPU."""
        return False

    def start(self, storage: Storage) -> None:
        """Notes whether programs leave results in arrays to be used again: FP32 or bf16, but not FP64."""
        self._recycles = storage != "fp64"

    def compiling(self, accelerated: bool) -> AbstractContextManager[None]:
        """Does nothing: the engine compiles for the CPU unless it is told otherwise."""
        return nullcontext()

    def install(self, program: JavaObject, on_cpu: JavaObject) -> None:
        """Does nothing: no program was compiled for a GPU."""

    def send(self, array: np.ndarray) -> JavaObject:
        """Copies a 2-D array of numbers into the JVM, as doubles."""
        return self._transfer.send(array)

    def take(self, matrix: JavaObject) -> JavaObject:
        """Gives the matrix itself."""
        return matrix

    def upload(self, matrices: JavaObject) -> None:
        """Does nothing: all matrices are in the JVM's heap."""

    def free(self, lists: Sequence[JavaObject], keep: Sequence[JavaObject]) -> None:
        """Does nothing: the garbage collector sees all matrices."""

    def recycle(self, lists: Sequence[JavaObject], keep: Sequence[JavaObject]) -> None:
        """Hands the arrays of lists to later operators, as far as operators have made them."""
        if self._recycles:
            if self._recycler is None:
                self._recycler = new_recycler(self._gateway)
            freed, kept = (java_array(self._gateway, handles) for handles in (lists, keep))
            self._recycler.recycle(freed, kept)
            uncycle(freed, kept, *lists, *keep)

    def run(self, script: JavaObject, inputs: Mapping[str, Value], program: Program) -> dict[str, Result]:
        """Runs the prepared script of a program, and gives the program's outputs by name."""
        if not self._named:
            # Operators share a thread pool only if their thread's name contains "main" (PrivateGateway.java).
            self._gateway.jvm.Thread.currentThread().setName("main")
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
                # otherwise the engine deletes the list's matrices once the program has used them
                if program.place == "workers":
                    call(value, "enableCleanup", False)
                variables.put(name, value)
            elif isinstance(value, JavaObject):
                script.setMatrix(name, value, False)
            else:
                script.setScalar(name, value)
        results = script.executeScript()
        script.clearParameters()
        values = {name: GETTERS[kind](results, name) for name, kind in program.outputs.items()}
        uncycle(results, *(value for value in sent.values() if isinstance(value, JavaObject)))
        return values

    def operators(self) -> AbstractContextManager[dict[str, Operator]]:
        """Raises UserError: there are no instructions on GPUs."""
        raise UserError(_NO_GPU)

    def memory(self) -> tuple[int, int]:
        """Raises UserError: there is no memory of GPUs."""
        raise UserError(_NO_GPU)
