"""The table of DML functions that run as operators of this package instead of as DML.

It says what each operator computes, in Java where that is a formula; templates.py makes Java classes of it.

It also says which inputs of a function are taken: those that no program reads after the call, as the
function's comment in DML tells its callers. Where activations are FP32 or bf16, an operator uses their memory
for its result or for later ones, and whoever reads them afterwards gets an error.
"""

from __future__ import annotations

from typing import NamedTuple

PIXELWISE_SOURCE = "dml/layers/pixels/pixelwise.dml"
_POOL_SOURCE = "dml/layers/pixels/max_pool2d.dml"
_CONV_SOURCE = "dml/layers/pixels/conv2d.dml"


class Pixelwise(NamedTuple):
    """The output of a function of dml/layers/pixels/pixelwise.dml, computed in one pass.

    Values in FP64 are computed by Pixelwise.java, and others by the native helper (Pass.java).

    Attributes:
        name: The name of the output in the function.
        number: The number of the helper's pass (engine/native/passes.h), which has the inputs in the same
            order, but for the one whose memory holds the result; 0 for results that are always FP64.
        value: The formula of an element from those of the inputs, in Java's DoubleVector; empty with `sums`.
        sums: The formulas whose values are summed over the rows; each makes a row of the output.
        fp32: Whether values are FP32 where activations are bf16, as those of a network's tensors are.
        taken: The names of the inputs that are taken, with spaces between them. The first one's memory holds
            the result, whose shape it has.
    """

    name: str
    number: int
    value: str = ""
    sums: tuple[str, ...] = ()
    fp32: bool = False
    taken: str = ""


class Native(NamedTuple):
    """One output of a convolution or a product, computed by the package's native helper (Native.java).

    Attributes:
        name: The name of the output in the function.
        images, gradient, filters: The names of the inputs in these roles, or empty texts. Which of them are
            there decides what is computed (sconv2dBiasAddDense in engine/native/helper.cpp).
        windows: Whether the function takes the height and width of the images, and the size K and the stride
            of the filters; otherwise filters are 1 x 1.
        taken: The name of the input that is taken, or an empty text.
    """

    name: str
    images: str = ""
    gradient: str = ""
    filters: str = ""
    windows: bool = False
    taken: str = ""


class Templated(NamedTuple):
    """The output of a function whose class has a template of its own.

    Attributes:
        name: The name of the output in the function.
        template: The name of the file in this folder with the template of its class; where there is a number,
            for values in FP64 alone.
        number: The number of the helper's pass (engine/native/passes.h) for other values (Pool.java), or 0.
        inputs: The names of the inputs that are used, with spaces between them.
        backward: Whether the function is the backward pass.
        taken: The names of the inputs that are taken, with spaces between them.
    """

    name: str
    template: str
    number: int
    inputs: str
    backward: bool = False
    taken: str = ""


Output = Pixelwise | Native | Templated

# There are no fused multiply-adds: each operation rounds, as in the DML functions.
_WHERE = "((DoubleVector) DoubleVector.zero(SPECIES).blend({}, {}.compare(VectorOperators.{}, {})))"
_PASSED = _WHERE.format("dout", "out", "GT", "1e-300")  # the gradient that passes a ReLU
_PIXELWISE = {
    "norm_relu": Pixelwise("out", 1, "X.mul(scale).add(shift).max(1e-300)"),
    "norm_add_relu": Pixelwise("out", 2, "X.mul(scale).add(shift).add(shortcut).max(1e-300)"),
    "shift_relu": Pixelwise("out", 3, "X.add(shift).max(1e-300)", taken="X"),
    "shift_add_relu": Pixelwise("out", 4, "X.add(shift).add(shortcut).max(1e-300)", taken="X"),
    "relu_backward": Pixelwise("dX", 5, f"{_PASSED}.add(1e-300)", taken="dout out"),
    "relu_backward_add": Pixelwise(
        "dX",
        6,
        _WHERE.format("dout.add(dout_other)", "out", "GT", "1e-300") + ".add(1e-300)",
        taken="dout dout_other out",
    ),
    "sum_backward": Pixelwise("dX", 7, "dout.add(dout_other)", taken="dout dout_other"),
    "norm_backward": Pixelwise("dX", 8, "dout.mul(a).sub(X.mul(b)).sub(c)", taken="X"),
    "norm_relu_backward": Pixelwise("dX", 9, f"{_PASSED}.mul(a).sub(X.mul(b)).sub(c)", taken="dout out X"),
    "scaled": Pixelwise("out", 10, "X.mul(scale)", fp32=True),
    "as_fp64": Pixelwise("out", 0, "X"),
    "plus": Pixelwise("sum", 7, "A.add(B)", fp32=True, taken="A B"),
    "weighted_sum": Pixelwise("out", 11, "X.mul(alpha).add(Y.mul(beta)).add(Z.mul(gamma))", fp32=True),
    "weighted_sum_in_place": Pixelwise(
        "out", 12, "X.mul(alpha).add(Y.mul(beta)).add(Z.mul(gamma))", fp32=True, taken="Y"
    ),
    "weighted_square": Pixelwise("out", 13, "X.mul(alpha).add(Y.mul(Y).mul(beta))", fp32=True),
    "over_root": Pixelwise("out", 14, "X.div(Y.sqrt().add(eps))", fp32=True),
    "sums": Pixelwise("sum", 15, sums=("X",)),
    "squares": Pixelwise("sum_sq", 16, sums=("X.mul(X)",), fp32=True),
    "moments": Pixelwise("sums", 17, sums=("X", "X.mul(X)")),
    "dots": Pixelwise("sums", 18, sums=("dout", "dout.mul(X)")),
    "relu_dots": Pixelwise("sums", 19, sums=(_PASSED, f"{_PASSED}.mul(X)")),
}
VECTORS = {"scale", "shift", "a", "b", "c"}  # matrices of shape (1, C)
_MAX_POOL = {
    "forward": Templated("out", "MaxPool.java", 20, "X height width K stride"),
    "backward": Templated(
        "dX", "MaxPool.java", 21, "dout out X height width K stride", backward=True, taken="dout out"
    ),
}
_STRIDED = {
    "pixels": Templated("out", "Strided.java", 0, "X height width stride"),
    "pixels_backward": Templated(
        "dX", "Strided.java", 0, "dout height width stride", backward=True, taken="dout"
    ),
}
_NATIVE: dict[str, dict[str, list[Output]]] = {
    PIXELWISE_SOURCE: {"first_of": [Templated("out", "FirstOf.java", 0, "X Y", taken="X Y")]},
    "dml/layers/pixels/product.dml": {
        # as 1 x 1 convolutions: the gradient wrt the filters, that wrt the images, and a product with itself
        "left_transposed": [Native("C", images="A", gradient="B")],
        "right_transposed": [Native("C", gradient="A", filters="B")],
        "gram": [Native("C", images="A")],
        "joined": [Native("C", images="B", gradient="A", filters="W")],
    },
    _CONV_SOURCE: {
        "forward": [Native("out", images="P", filters="W")],
        "backward": [
            Native("dP", gradient="dout", filters="W"),
            Native("dW", images="P", gradient="dout", taken="dout"),
        ],
        "windows_forward": [Native("out", images="X", filters="W", windows=True)],
        "windows_backward_filter": [Native("dW", images="X", gradient="dout", windows=True, taken="dout")],
        "windows_backward": [
            Native("dX", gradient="dout", filters="W", windows=True),
            Native("dW", images="X", gradient="dout", windows=True, taken="dout"),
        ],
    },
}


def operators(namespace: str, name: str, native: bool) -> list[Output]:
    """Gives the operators that replace a DML function, one for each of its outputs; none for most functions.

    Args:
        namespace, name: The namespace and the name of the function.
        native: Whether there is the native helper.
    """
    if namespace.endswith(PIXELWISE_SOURCE) and name in _PIXELWISE:
        return [_PIXELWISE[name]]
    if namespace.endswith(_POOL_SOURCE) and name in _MAX_POOL:
        return [_MAX_POOL[name]]
    if namespace.endswith(_CONV_SOURCE) and name in _STRIDED:
        return [_STRIDED[name]]
    sources = [functions for source, functions in _NATIVE.items() if native and namespace.endswith(source)]
    return sources[0].get(name, []) if sources else []
