"""The Java classes of the operators in table.py, and the change of DML functions into these operators.

The engine runs them as it runs the operators that its own code generator makes (SpoofCPInstruction): their
classes are compiled in the JVM, and their text goes with a program to the executors of a cluster.
"""

from __future__ import annotations

import re
from pathlib import Path

from py4j.java_gateway import JavaGateway, JavaObject, JVMView
from py4j.protocol import Py4JJavaError

from sysds_resnet.engine.operators.table import VECTORS, Native, Output, Pixelwise

_FOLDER = Path(__file__).parent
_UNSAFE = "jdk.internal.misc.Unsafe"
_UNINITIALIZED = "({0}[]) " + _UNSAFE + ".getUnsafe().allocateUninitializedArray({0}.class, cells)"


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
    native: bool,
) -> None:
    """Makes a compiled function run as one operator for each of its outputs.

    Args:
        gateway: The py4j gateway of the JVM.
        program: The compiled program that has the function.
        namespace, name: The namespace and the name of the function.
        outputs: The operators, one for each output, as `operators` in table.py gives them.
        threads: How many threads each operator may use.
        native: Whether there is the native helper, with which activations are kept in FP32.
    """
    sysds = gateway.jvm.org.apache.sysds
    function = program.getFunctionProgramBlock(namespace, name)
    inputs = [(i.getName(), i.getDataType().toString()) for i in function.getInputParams()]
    instructions = {}
    new = _UNINITIALIZED if _may_skip_zeros(gateway.jvm) else "new {}[cells]"
    for output in outputs:
        class_name = f"{Path(namespace).stem}_{name}_{output.name}" + "_fp32" * native
        used = [(n, t) for n, t in inputs if n in _names(output)]
        text = _java(class_name, output, used, native)
        for kind in ("double", "float"):
            text = text.replace(f"$NEW_{kind.upper()}S$", new.format(kind))
        sysds.runtime.codegen.CodegenUtils.compileClass(f"codegen.{class_name}", text)
        operands = [f"{n}·{t}·FP64" + "·false" * (t == "SCALAR") for n, t in [*used, (output.name, "MATRIX")]]
        words = ["CP", "spoof", "JAVA", f"codegen.{class_name}", *operands, str(threads)]
        instructions[output.name] = "°".join(words)
    _set_body(gateway, program, namespace, name, instructions)


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


def _names(output: Output) -> set[str]:
    """Gives the names of the inputs that an output needs."""
    if isinstance(output, Pixelwise):
        return set(re.findall(r"\w+", " ".join([output.value, *output.sums])))
    if isinstance(output, Native):
        windows = ["height", "width", "K", "stride"] if output.windows else []
        return {output.images, output.gradient, output.filters, *windows}
    return set(output.inputs.split())


def _java(class_name: str, output: Output, inputs: list[tuple[str, str]], fp32: bool) -> str:
    matrices = [name for name, kind in inputs if kind == "MATRIX"]
    scalars = [name for name, kind in inputs if kind == "SCALAR"]
    if isinstance(output, Pixelwise):
        return _pixelwise(class_name, output, matrices, scalars, fp32 and not output.fp64)
    if isinstance(output, Native):
        roles = {"IMAGES": output.images, "GRADIENT": output.gradient, "FILTERS": output.filters}
        places = {role: str(matrices.index(name) if name else -1) for role, name in roles.items()}
        is_sum = str(not output.filters).lower()
        return _filled("Native.java", {"NAME": class_name, "IS_SUM": is_sum, **places})
    fields = {"NAME": class_name, "BACKWARD": str(output.backward).lower()}
    fields["REAL"] = "float" if fp32 else "double"
    fields["VECTOR"] = "FloatVector" if fp32 else "DoubleVector"
    return _filled(output.template, fields)


def _may_skip_zeros(jvm: JVMView) -> bool:
    """Tells whether classes may make arrays without filling them with zeros, which is a pass over memory."""
    by_name = jvm.java.lang.Class.forName
    package = _UNSAFE.rpartition(".")[0]
    ours = by_name("org.apache.sysds.api.DMLScript").getModule()
    return by_name(_UNSAFE).getModule().isExported(package, ours)


def _pixelwise(
    class_name: str, output: Pixelwise, matrices: list[str], scalars: list[str], fp32: bool
) -> str:
    value = f"((DoubleVector) ({output.value or 'DoubleVector.zero(SPECIES)'}))"
    add = "DoubleVector.fromArray(SPECIES, sums, i + {0}{1}).add({2}).intoArray(sums, i + {0}{1});"
    added = [(f"{k} * tile", value) for k, value in enumerate(output.sums)]

    def load(name: str, mask: str) -> str:
        if name in VECTORS:
            return f"DoubleVector {name} = DoubleVector.fromArray(SPECIES, {name}_, i{mask});"
        if not fp32:
            return f"DoubleVector {name} = DoubleVector.fromArray(SPECIES, {name}_, from + i{mask});"
        mask = mask and ", half"
        return (
            f"DoubleVector {name} = (DoubleVector) FloatVector.fromArray(HALF, {name}_, from + i{mask})"
            ".convertShape(VectorOperators.F2D, SPECIES, 0);"
        )

    real = {name: "float" if fp32 and name not in VECTORS else "double" for name in matrices}
    fields = {
        "NAME": class_name,
        "REAL": "float" if fp32 else "double",
        "IS_VECTOR": ", ".join(str(name in VECTORS).lower() for name in matrices),
        "SUMS": str(len(output.sums)),
        "ARRAYS": " ".join(
            [f"{real[name]}[] {name}_ = ({real[name]}[]) in[{i}];" for i, name in enumerate(matrices)]
            + [f"double {name} = numbers[{i}];" for i, name in enumerate(scalars)]
        ),
        "LOADS": " ".join(load(name, "") for name in matrices),
        "MASKED_LOADS": " ".join(load(name, ", mask") for name in matrices),
        "STORE": f"((FloatVector) {value}.convertShape(VectorOperators.D2F, HALF, 0)).intoArray(result"
        if fp32
        else f"{value}.intoArray(result",
        "MASK": "half" if fp32 else "mask",
        "ADD": " ".join(add.format(place, "", value) for place, value in added),
        "MASKED_ADD": " ".join(add.format(place, ", mask", value) for place, value in added),
    }
    return _filled("Pixelwise.java", fields)


def _filled(template: str, fields: dict[str, str]) -> str:
    text = (_FOLDER / template).read_text().replace("  $FRAME$\n", (_FOLDER / "Frame.java").read_text())
    for field, value in fields.items():
        text = text.replace(f"${field}$", value)
    return text
