"""The functions of dml/layers/pixelwise.dml as operators that pass over memory once.

The engine runs them as it runs the operators that its own code generator makes (SpoofCPInstruction): their
classes are compiled in the JVM, and their text goes with a program to the executors of a cluster.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from py4j.java_gateway import JavaGateway, JavaObject, JVMView
from py4j.protocol import Py4JJavaError

SOURCE = "dml/layers/pixelwise.dml"
_TEMPLATE = Path(__file__).with_name("Pixelwise.java")


class Output(NamedTuple):
    """One output of a function.

    Attributes:
        name: As in the function.
        value: Of its elements, or what is summed over the rows, of the inputs, in Java's DoubleVector.
        sums: Whether it is summed.
    """

    name: str
    value: str
    sums: bool = False


# No fused multiply-adds: each operation rounds, as in the plain functions.
_HELD_BACK = (
    "((DoubleVector) DoubleVector.zero(SPECIES).blend({}, {}.compare(VectorOperators.{}, {}))).add(1e-300)"
)
OPERATORS = {
    "norm_relu": [Output("out", "X.mul(scale).add(shift).max(1e-300)")],
    "norm_add_relu": [Output("out", "X.mul(scale).add(shift).add(shortcut).max(1e-300)")],
    "shift_relu": [Output("out", "X.add(shift).max(1e-300)")],
    "shift_add_relu": [Output("out", "X.add(shift).add(shortcut).max(1e-300)")],
    "relu_backward": [Output("dX", _HELD_BACK.format("dout", "out", "GT", "1e-300"))],
    "relu_backward_add": [Output("dX", _HELD_BACK.format("dout.add(dout_other)", "out", "GT", "1e-300"))],
    "norm_backward": [Output("dX", "dout.mul(a).sub(X.mul(b)).sub(c)")],
    "difference": [Output("out", "X.sub(Y).sub(shift)")],
    "weighted_sum": [Output("out", "X.mul(a).add(Y.mul(b)).add(Z.mul(c))")],
    "where_equal": [Output("out", _HELD_BACK.format("X", "Y", "EQ", "Z"))],
    "where_unequal": [Output("out", _HELD_BACK.format("X", "Y", "NE", "Z"))],
    "sums": [Output("sum", "X", sums=True)],
    "squares": [Output("sum_sq", "X.mul(X)", sums=True)],
    "dots": [Output("sum", "dout", sums=True), Output("dot", "dout.mul(X)", sums=True)],
}
_VECTORS = {"scale", "shift", "a", "b", "c"}  # matrices of shape (1, C)


def uninlined(text: str) -> str:
    """The text of DML functions such that calls of them stay calls, whose bodies can be replaced."""
    return text.replace(") {\n", ") {\n  while(FALSE){}\n")


def can_compile(jvm: JVMView) -> bool:
    """Whether the JVM has what operators are compiled with and from."""
    try:
        for name in ("org.codehaus.janino.SimpleCompiler", "jdk.incubator.vector.DoubleVector"):
            jvm.java.lang.Class.forName(name)
    except Py4JJavaError:
        return False
    return True


def fuse(gateway: JavaGateway, program: JavaObject, namespace: str, name: str, threads: int) -> None:
    """Has a compiled function of dml/layers/pixelwise.dml run as one operator for each output.

    Args:
        gateway: The py4j gateway of the JVM.
        program: Which has the function.
        namespace, name: Of the function.
        threads: How many each operator has.
    """
    sysds = gateway.jvm.org.apache.sysds
    function = program.getFunctionProgramBlock(namespace, name)
    inputs = [(i.getName(), i.getDataType().toString()) for i in function.getInputParams()]
    instructions = gateway.jvm.java.util.ArrayList()
    scratch = sysds.conf.ConfigurationManager.getScratchSpace()
    place = f"{scratch}/_p{sysds.api.DMLScript.getUUID()}//_t0/{name}"
    variable = sysds.runtime.instructions.cp.VariableCPInstruction
    spoof = sysds.runtime.instructions.cp.SpoofCPInstruction
    for output in OPERATORS[name]:
        class_name = f"{name}_{output.name}"
        used = [(n, t) for n, t in inputs if re.search(rf"\b{n}\b", output.value)]
        sysds.runtime.codegen.CodegenUtils.compileClass(
            f"codegen.{class_name}", _java(class_name, output, used)
        )
        operands = [f"{n}·{t}·FP64" + "·false" * (t == "SCALAR") for n, t in [*used, (output.name, "MATRIX")]]
        words = ["CP", "spoof", "JAVA", f"codegen.{class_name}", *operands, str(threads)]
        # its matrices live side by side, so that each call needs a file name of its own
        instructions.add(variable.prepCreatevarInstruction(output.name, place, True, "binary"))
        instructions.add(spoof.parseInstruction("°".join(words)))
    block = sysds.runtime.controlprogram.BasicProgramBlock(program)
    block.setInstructions(instructions)
    blocks = gateway.jvm.java.util.ArrayList()
    blocks.add(block)
    function.setChildBlocks(blocks)


def _java(class_name: str, output: Output, inputs: list[tuple[str, str]]) -> str:
    matrices = [name for name, kind in inputs if kind == "MATRIX"]
    scalars = [name for name, kind in inputs if kind == "SCALAR"]
    place = {name: "i" if name in _VECTORS else "from + i" for name in matrices}
    loads = [f"DoubleVector {n} = DoubleVector.fromArray(SPECIES, {n}_, {place[n]}" for n in matrices]
    fields = {
        "NAME": class_name,
        "IS_VECTOR": ", ".join(str(name in _VECTORS).lower() for name in matrices),
        "SUMS": str(output.sums).lower(),
        "ARRAYS": " ".join(
            [f"double[] {name}_ = in[{i}];" for i, name in enumerate(matrices)]
            + [f"double {name} = numbers[{i}];" for i, name in enumerate(scalars)]
        ),
        "LOADS": " ".join(f"{load});" for load in loads),
        "MASKED_LOADS": " ".join(f"{load}, mask);" for load in loads),
        "VALUE": output.value,
    }
    text = _TEMPLATE.read_text()
    for field, value in fields.items():
        text = text.replace(f"${field}$", value)
    return text
