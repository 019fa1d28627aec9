"""The table of DML functions that run as operators of this package instead of as DML.

It says what each operator computes, in Java where that is a formula; classes.py makes Java classes of it.
"""

from __future__ import annotations

from typing import NamedTuple

PIXELWISE_SOURCE = "dml/layers/pixels/pixelwise.dml"
_POOL_SOURCE = "dml/layers/pixels/max_pool2d.dml"
_CONV_SOURCE = "dml/layers/pixels/conv2d.dml"


class Pixelwise(NamedTuple):
    """The output of a function of dml/layers/pixels/pixelwise.dml, computed in one pass (Pixelwise.java).

    Attributes:
        name: The name of the output in the function.
        value: The formula of an element from those of the inputs, in Java's DoubleVector; empty with `sums`.
        sums: The formulas whose values are summed over the rows; each makes one row of the output.
        fp64: Whether the result is FP64 even if activations are FP32.
    """

    name: str
    value: str = ""
    sums: tuple[str, ...] = ()
    fp64: bool = False


class Native(NamedTuple):
    """One output of a convolution or a product, computed by the package's native helper (Native.java).

    Attributes:
        name: The name of the output in the function.
        images, gradient, filters: The names of the inputs in these roles, or empty texts. Which of them are
            there decides what is computed (sconv2dBiasAddDense in engine/native/helper.cpp).
        windows: Whether the function takes the height and width of the images, and the size K and the stride
            of the filters; otherwise filters are 1 x 1.
    """

    name: str
    images: str = ""
    gradient: str = ""
    filters: str = ""
    windows: bool = False


class Windows(NamedTuple):
    """The output of a function that goes through windows of images: a max pool, or a shortcut's pixels.

    Attributes:
        name: The name of the output in the function.
        template: The name of the file in this folder with the template of its class.
        inputs: The names of the inputs that are used, with spaces between them.
        backward: Whether the function is the backward pass.
    """

    name: str
    template: str
    inputs: str
    backward: bool


Output = Pixelwise | Native | Windows

# There are no fused multiply-adds: each operation rounds, as in the DML functions.
_WHERE = "((DoubleVector) DoubleVector.zero(SPECIES).blend({}, {}.compare(VectorOperators.{}, {})))"
_PASSED = _WHERE.format("dout", "out", "GT", "1e-300")  # the gradient that passes a ReLU
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
    "scaled": Pixelwise("out", "X.mul(scale)"),
    "as_fp64": Pixelwise("out", "X", fp64=True),
    "plus": Pixelwise("sum", "A.add(B)", fp64=True),
    "weighted_sum": Pixelwise("out", "X.mul(a).add(Y.mul(b)).add(Z.mul(c))", fp64=True),
    "weighted_square": Pixelwise("out", "X.mul(a).add(Y.mul(Y).mul(b))", fp64=True),
    "over_root": Pixelwise("out", "X.div(Y.sqrt().add(eps))", fp64=True),
    "sums": Pixelwise("sum", sums=("X",)),
    "squares": Pixelwise("sum_sq", sums=("X.mul(X)",), fp64=True),
    "moments": Pixelwise("sums", sums=("X", "X.mul(X)")),
    "dots": Pixelwise("sums", sums=("dout", "dout.mul(X)")),
    "relu_dots": Pixelwise("sums", sums=(_PASSED, f"{_PASSED}.mul(X)")),
}
VECTORS = {"scale", "shift", "a", "b", "c"}  # matrices of shape (1, C)
_MAX_POOL = {
    "forward": Windows("out", "MaxPool.java", "X height width K stride", backward=False),
    "backward": Windows("dX", "MaxPool.java", "dout out X height width K stride", backward=True),
}
_STRIDED = {
    "pixels": Windows("out", "Strided.java", "X height width stride", backward=False),
    "pixels_backward": Windows("dX", "Strided.java", "dout height width stride", backward=True),
}
_NATIVE = {
    "dml/layers/pixels/product.dml": {
        # as 1 x 1 convolutions: the gradient wrt the filters, that wrt the images, and a product with itself
        "left_transposed": [Native("C", images="A", gradient="B")],
        "right_transposed": [Native("C", gradient="A", filters="B")],
        "gram": [Native("C", images="A")],
    },
    _CONV_SOURCE: {
        "forward": [Native("out", images="P", filters="W")],
        "backward_filter": [Native("dW", images="P", gradient="dout")],
        "windows_forward": [Native("out", images="X", filters="W", windows=True)],
        "windows_backward_filter": [Native("dW", images="X", gradient="dout", windows=True)],
        "windows_backward": [
            Native("dX", gradient="dout", filters="W", windows=True),
            Native("dW", images="X", gradient="dout", windows=True),
        ],
    },
}


def operators(namespace: str, name: str, native: bool) -> list[Output]:
    """Gives the operators that replace a DML function, one for each of its outputs; none for most functions.

    Args:
        namespace, name: The namespace and the name of the function.
        native: Whether there is the native helper.
    """
    if namespace.endswith(PIXELWISE_SOURCE):
        return [_PIXELWISE[name]]
    if namespace.endswith(_POOL_SOURCE) and name in _MAX_POOL:
        return [_MAX_POOL[name]]
    if namespace.endswith(_CONV_SOURCE) and name in _STRIDED:
        return [_STRIDED[name]]
    sources = [functions for source, functions in _NATIVE.items() if native and namespace.endswith(source)]
    return sources[0].get(name, []) if sources else []
