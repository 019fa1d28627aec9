"""The recorder of calls of DML functions while programs run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from py4j.java_gateway import JavaGateway, JavaObject

from sysds_resnet.engine.compiler import Programs
from sysds_resnet.engine.jvm.classes import compile_classes, hidden


@dataclass(frozen=True)
class Matrix:
    """The shape of a matrix, and the bytes that it takes in memory."""

    rows: int
    columns: int
    bytes: int


@dataclass(frozen=True)
class Call:
    """One call of a DML function.

    Attributes:
        function: The file and name of the function, such as "conv2d.forward".
        start, end: The times of the call and of its end, in nanoseconds on the JVM's clock.
        operands: The inputs and outputs by name: matrices, and numbers as text.
    """

    function: str
    start: int
    end: int
    operands: dict[str, Matrix | str]


@contextmanager
def record(gateway: JavaGateway, programs: Programs) -> Iterator[list[Call]]:
    """Records every call of a function of the programs compiled so far, in a list that is filled at the end.

    Meanwhile each function is replaced by one that notes the times and the operands of its calls.

    Raises:
        UserError: If the JVM cannot compile Java; the engine's own JVM can.
    """
    jvm = gateway.jvm
    [new_recorder] = compile_classes(gateway, Path(__file__).with_name("jvm"), "Recorder")
    lines = jvm.java.util.ArrayList()
    replaced = []
    calls: list[Call] = []
    try:
        for script in programs.compiled.values():
            for namespace, name in programs.functions(script):
                function = hidden(script, "_prog").getFunctionProgramBlock(namespace, name)
                recorder = new_recorder([function, f"{Path(namespace).stem}.{name}", lines])
                replaced.append((script, namespace, name, function))
                _replace_function(script, namespace, name, recorder)
        yield calls
    finally:
        for place in replaced:
            _replace_function(*place)
    calls += map(_parse, jvm.java.lang.String.join("\n", lines).splitlines())


def _parse(line: str) -> Call:
    function, start, end, *operands = line.split("\t")
    values = dict(operand.split("=", 1) for operand in operands)
    return Call(function, int(start), int(end), {name: _operand(text) for name, text in values.items()})


def _operand(text: str) -> Matrix | str:
    sizes = text.split(" ")
    return Matrix(*map(int, sizes)) if len(sizes) == 3 and all(size.isdigit() for size in sizes) else text


def _replace_function(script: JavaObject, namespace: str, name: str, function: JavaObject) -> None:
    """Makes a prepared script call another compiled function in place of one of its own."""
    program = hidden(script, "_prog")
    program.removeFunctionProgramBlock(namespace, name)
    program.addFunctionProgramBlock(namespace, name, function)
