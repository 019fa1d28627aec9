"""Functions of dml/layers/ as operators of our own: passes over activations, and multiplies by the helper.

The engine runs them as it runs the operators that its own code generator makes (SpoofCPInstruction): their
classes are compiled in the JVM, and their text goes with a program to the executors of a cluster.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from py4j.java_gateway import JavaGateway, JavaObject, JVMView
from py4j.protocol import Py4JJavaError

PIXELWISE_SOURCE = "dml/layers/pixelwise.dml"
_POOL_SOURCE = "dml/layers/max_pool2d.dml"
_FOLDER = Path(__file__).parent


class Pixelwise(NamedTuple):
    """The output of a function of dml/layers/pixelwise.dml, made in one pass over memory (Pixelwise.java).

    Attributes:
        name: As in the function.
        value: Of its elements, of the inputs, in Java's DoubleVector; or
        sums: what is summed over the rows, a row of the output for each.
    """

    name: str
    value: str = ""
    sums: tuple[str, ...] = ()


class Native(NamedTuple):
    """One output of a function, computed by the package's native helper (Native.java).

    Attributes:
        name: As in the function.
        rows, columns: Its shape, in Java.
        call: Of the helper's function that fills the array `result`.
    """

    name: str
    rows: str
    columns: str
    call: str


class MaxPool(NamedTuple):
    """The output of a function of dml/layers/max_pool2d.dml (MaxPool.java).

    Attributes:
        name: As in the function.
        inputs: Those that are used.
        backward: Whether it is the backward pass.
    """

    name: str
    inputs: str
    backward: bool


Output = Pixelwise | Native | MaxPool

# No fused multiply-adds: each operation rounds, as in the plain functions.
_WHERE = "((DoubleVector) DoubleVector.zero(SPECIES).blend({}, {}.compare(VectorOperators.{}, {})))"
_PASSED = _WHERE.format("dout", "out", "GT", "1e-300")  # by a ReLU
_PIXELWISE = {
    "norm_relu": Pixelwise("out", "X.mul(scale).add(shift).max(1e-300)"),
    "norm_add_relu": Pixelwise("out", "X.mul(scale).add(shift).add(shortcut).max(1e-300)"),
    "shift_relu": Pixelwise("out", "X.add(shift).max(1e-300)"),
    "shift_add_relu": Pixelwise("out", "X.add(shift).add(shortcut).max(1e-300)"),
    "relu_backward": Pixelwise("dX", f"{_PASSED}.add(1e-300)"),
    "relu_backward_add": Pixelwise(
        "dX", _WHERE.format("dout.add(dout_other)", "out", "GT", "1e-300") + ".add(1e-300)"
    ),
    "norm_backward": Pixelwise("dX", "dout.mul(a).sub(X.mul(b)).sub(c)"),
    "norm_relu_backward": Pixelwise("dX", f"{_PASSED}.mul(a).sub(X.mul(b)).sub(c)"),
    "difference": Pixelwise("out", "X.sub(Y).sub(shift)"),
    "weighted_sum": Pixelwise("out", "X.mul(a).add(Y.mul(b)).add(Z.mul(c))"),
    "sums": Pixelwise("sum", sums=("X",)),
    "squares": Pixelwise("sum_sq", sums=("X.mul(X)",)),
    "moments": Pixelwise("sums", sums=("X", "X.mul(X)")),
    "dots": Pixelwise("sums", sums=("dout", "dout.mul(X)")),
    "relu_dots": Pixelwise("sums", sums=(_PASSED, f"{_PASSED}.mul(X)")),
}
_VECTORS = {"scale", "shift", "a", "b", "c"}  # matrices of shape (1, C)
_MAX_POOL = {
    "forward": MaxPool("out", "X height width K stride", backward=False),
    "backward": MaxPool("dX", "dout out X height width K stride", backward=True),
}
# a product as the 1 x 1 convolution of images of a pixel
_POINT = "1, 1, {}, 1, 1, 1, 1, 0, 0, 1, 1, threads"
# a negative number of threads says that images are pixel-major
_WINDOWS = "{}, {}, height, width, {}, K, K, stride, stride, pad, pad, P, Q, -threads"
_WINDOWS_FILTER = Native(
    *("dW", "K * K * columns(X)", "columns(dout)"),
    "conv2dBackwardFilterDense(dense(X), dense(dout), result, "
    + _WINDOWS.format("rows(X) / (height * width)", "columns(X)", "columns(dout)"),
)
_NATIVE = {
    "dml/layers/product.dml": {
        # to a 1 x 1 convolution one product is the gradient wrt the filters, the other the forward pass
        "left_transposed": [
            Native(
                *("C", "columns(A)", "columns(B)"),
                "conv2dBackwardFilterDense(dense(B), dense(A), result, rows(A), columns(B), "
                + _POINT.format("columns(A)"),
            )
        ],
        "right_transposed": [
            Native(
                *("C", "rows(A)", "rows(B)"),
                "conv2dDense(dense(A), dense(B), result, rows(A), columns(A), " + _POINT.format("rows(B)"),
            )
        ],
    },
    "dml/layers/conv2d.dml": {
        "forward": [
            Native(
                *("out", "rows(P)", "columns(W)"),
                "dmmdd(dense(P), dense(W), result, rows(P), columns(P), columns(W), threads",
            )
        ],
        "windows_forward": [
            Native(
                *("out", "rows(X) / (height * width) * (P * Q)", "columns(W)"),
                "conv2dDense(dense(X), dense(W), result, "
                + _WINDOWS.format("rows(X) / (height * width)", "columns(X)", "columns(W)"),
            )
        ],
        "windows_backward_filter": [_WINDOWS_FILTER],
        "windows_backward": [
            Native(
                *("dX", "rows(X)", "columns(X)"),
                "conv2dBackwardDataDense(dense(W), dense(dout), result, "
                + _WINDOWS.format("rows(X) / (height * width)", "columns(X)", "columns(dout)"),
            ),
            _WINDOWS_FILTER,
        ],
    },
}
_NATIVE_LOCALS = """
    final int P = outputs(height, stride), Q = outputs(width, stride), pad = (K - 1) / 2;"""
_UNSAFE = "jdk.internal.misc.Unsafe"
_UNINITIALIZED = f"(double[]) {_UNSAFE}.getUnsafe().allocateUninitializedArray(double.class, (int) cells)"


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


def operators(namespace: str, name: str, native: bool) -> list[Output]:
    """What takes the place of a function, one for each of its outputs; nothing for most functions.

    Args:
        namespace, name: Of the function.
        native: Whether there is the native helper.
    """
    if namespace.endswith(PIXELWISE_SOURCE):
        return [_PIXELWISE[name]]
    if namespace.endswith(_POOL_SOURCE):
        return [_MAX_POOL[name]] if name in _MAX_POOL else []
    sources = [functions for source, functions in _NATIVE.items() if native and namespace.endswith(source)]
    return sources[0].get(name, []) if sources else []


def replace_body(
    gateway: JavaGateway,
    program: JavaObject,
    namespace: str,
    name: str,
    outputs: list[Output],
    threads: int,
) -> None:
    """Has a compiled function run as one operator for each output.

    Args:
        gateway: The py4j gateway of the JVM.
        program: Which has the function.
        namespace, name: Of the function.
        outputs: From `operators`.
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
    new = _UNINITIALIZED if _may_skip_zeros(gateway.jvm) else "new double[(int) cells]"
    for output in outputs:
        class_name = f"{Path(namespace).stem}_{name}_{output.name}"
        used = [(n, t) for n, t in inputs if re.search(rf"\b{n}\b", _text(output))]
        sysds.runtime.codegen.CodegenUtils.compileClass(
            f"codegen.{class_name}", _java(class_name, output, used).replace("$NEW$", new)
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


def _text(output: Output) -> str:
    """What names the inputs that an output needs."""
    if isinstance(output, Pixelwise):
        return " ".join([output.value, *output.sums])
    if isinstance(output, MaxPool):
        return output.inputs
    return " ".join(output[1:]) + (" height width K stride" if "pad" in output.call else "")


def _java(class_name: str, output: Output, inputs: list[tuple[str, str]]) -> str:
    if isinstance(output, Pixelwise):
        return _pixelwise(class_name, output, inputs)
    if isinstance(output, Native):
        return _native(class_name, output, inputs)
    return _filled("MaxPool.java", {"NAME": class_name, "BACKWARD": str(output.backward).lower()})


def _may_skip_zeros(jvm: JVMView) -> bool:
    """Whether classes of the JVM may make arrays without filling them with zeros, a pass over memory."""
    by_name = jvm.java.lang.Class.forName
    package = _UNSAFE.rpartition(".")[0]
    ours = by_name("org.apache.sysds.api.DMLScript").getModule()
    return by_name(_UNSAFE).getModule().isExported(package, ours)


def _pixelwise(class_name: str, output: Pixelwise, inputs: list[tuple[str, str]]) -> str:
    matrices = [name for name, kind in inputs if kind == "MATRIX"]
    scalars = [name for name, kind in inputs if kind == "SCALAR"]
    place = {name: "i" if name in _VECTORS else "from + i" for name in matrices}
    loads = [f"DoubleVector {n} = DoubleVector.fromArray(SPECIES, {n}_, {place[n]}" for n in matrices]
    add = "DoubleVector.fromArray(SPECIES, sums, i + {0}{1}).add({2}).intoArray(sums, i + {0}{1});"
    added = [(f"{k} * tile", value) for k, value in enumerate(output.sums)]
    fields = {
        "NAME": class_name,
        "IS_VECTOR": ", ".join(str(name in _VECTORS).lower() for name in matrices),
        "SUMS": str(len(output.sums)),
        "ARRAYS": " ".join(
            [f"double[] {name}_ = in[{i}];" for i, name in enumerate(matrices)]
            + [f"double {name} = numbers[{i}];" for i, name in enumerate(scalars)]
        ),
        "LOADS": " ".join(f"{load});" for load in loads),
        "MASKED_LOADS": " ".join(f"{load}, mask);" for load in loads),
        "VALUE": output.value or "DoubleVector.zero(SPECIES)",
        "ADD": " ".join(add.format(place, "", value) for place, value in added),
        "MASKED_ADD": " ".join(add.format(place, ", mask", value) for place, value in added),
    }
    return _filled("Pixelwise.java", fields)


def _native(class_name: str, output: Native, inputs: list[tuple[str, str]]) -> str:
    lines = []
    for kind, line in (
        ("MATRIX", "final Object {} = inputs.get({});"),
        ("SCALAR", "final int {} = number(scalars.get({}));"),
    ):
        lines += [line.format(name, i) for i, name in enumerate(name for name, k in inputs if k == kind)]
    fields = {
        "NAME": class_name,
        "INPUTS": " ".join(lines) + (_NATIVE_LOCALS if "pad" in output.call else ""),
        "ROWS": output.rows,
        "COLUMNS": output.columns,
        "CALL": f"NativeHelper.{output.call})",
    }
    return _filled("Native.java", fields)


def _filled(template: str, fields: dict[str, str]) -> str:
    text = (_FOLDER / template).read_text().replace("  $FRAME$\n", (_FOLDER / "Frame.java").read_text())
    for field, value in fields.items():
        text = text.replace(f"${field}$", value)
    return text
