"""The Java classes of the operators in table.py, and the change of DML functions into these operators.

The engine runs them as it runs the operators that its own code generator makes (SpoofCPInstruction): their
classes are compiled in the JVM, and their text goes with a program to the executors of a cluster.
"""

from __future__ import annotations

from pathlib import Path

from py4j.java_gateway import JavaGateway, JavaObject, JVMView
from py4j.protocol import Py4JJavaError

from sysds_resnet.engine.jvm.classes import java_array
from sysds_resnet.engine.operators.table import Output
from sysds_resnet.engine.operators.templates import Storage, java, names_used, recycler


def uninlined(text: str) -> str:
    """Gives the text of DML functions so changed that they are not inlined and can be replaced."""
    return text.replace(") {\n", ") {\n  while(FALSE){}\n")


def can_compile(jvm: JVMView) -> bool:
    """Tells whether the JVM has the compiler (Janino) and the module of vectors that operators need."""
    try:
        for name in ("org.codehaus.janino.SimpleCompiler", "jdk.incubator.vector.DoubleVector"):
            jvm.java.lang.Class.forName(name)
    except Py4JJavaError:
        return False
    return True


def replace_body(
    gateway: JavaGateway,
    program: JavaObject,
    namespace: str,
    name: str,
    outputs: list[Output],
    threads: int,
    storage: Storage,
) -> None:
    """Makes a compiled function run as one operator for each of its outputs.

    Args:
        gateway: The py4j gateway of the JVM.
        program: The compiled program that has the function.
        namespace, name: The namespace and the name of the function.
        outputs: The operators, one for each output, as `operators` in table.py gives them.
        threads: How many threads each operator may use.
        storage: What activations are kept in.
    """
    sysds = gateway.jvm.org.apache.sysds
    function = program.getFunctionProgramBlock(namespace, name)
    inputs = [(i.getName(), i.getDataType().toString()) for i in function.getInputParams()]
    instructions = {}
    for output in outputs:
        class_name = f"{Path(namespace).stem}_{name}_{output.name}_{storage}"
        used = [(n, t) for n, t in inputs if n in names_used(output)]
        text = java(class_name, output, used, storage)
        sysds.runtime.codegen.CodegenUtils.compileClass(f"codegen.{class_name}", text)
        operands = [f"{n}·{t}·FP64" + "·false" * (t == "SCALAR") for n, t in [*used, (output.name, "MATRIX")]]
        words = ["CP", "spoof", "JAVA", f"codegen.{class_name}", *operands, str(threads)]
        instructions[output.name] = "°".join(words)
    _set_body(gateway, program, namespace, name, instructions)


def new_recycler(gateway: JavaGateway) -> JavaObject:
    """Makes an object of the class Recycler in the JVM, which hands arrays to operators to be used again."""
    found = gateway.jvm.org.apache.sysds.runtime.codegen.CodegenUtils.compileClass(
        "codegen.Recycler", recycler()
    )
    return found.getConstructors()[0].newInstance(java_array(gateway, []))


def _set_body(
    gateway: JavaGateway, program: JavaObject, namespace: str, name: str, instructions: dict[str, str]
) -> None:
    """Makes a compiled function run as these instructions of the engine, one for each output, by its name."""
    sysds = gateway.jvm.org.apache.sysds
    scratch = sysds.conf.ConfigurationManager.getScratchSpace()
    place = f"{scratch}/_p{sysds.api.DMLScript.getUUID()}//_t0/{name}"
    variable = sysds.runtime.instructions.cp.VariableCPInstruction
    parse = sysds.runtime.instructions.InstructionParser.parseSingleInstruction
    body = gateway.jvm.java.util.ArrayList()
    for output, text in instructions.items():
        # the results of several calls exist at the same time, so that each needs a file name of its own
        body.add(variable.prepCreatevarInstruction(output, place, True, "binary"))
        body.add(parse(text))
    block = sysds.runtime.controlprogram.BasicProgramBlock(program)
    block.setInstructions(body)
    blocks = gateway.jvm.java.util.ArrayList()
    blocks.add(block)
    program.getFunctionProgramBlock(namespace, name).setChildBlocks(blocks)
