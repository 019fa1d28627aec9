"""The operators over activations, plain and generated, on every mixture of dense, sparse and empty inputs."""

import itertools

import numpy as np
import pytest
from dml_runner import Dml

FLOOR = 1e-300
FUNCTIONS = {
    "norm_relu": "X scale shift",
    "norm_add_relu": "X scale shift Y",
    "norm_add_norm_relu": "X scale shift Y scale_y shift_y",
    "relu_backward_add": "dout out Y",
    "norm_backward": "dout out X scale shift",
    "dots": "dout out X",
    "moments": "X",
}


def expected(name, X=None, Y=None, out=None, dout=None, scale=None, shift=None, scale_y=None, shift_y=None):
    """The same in NumPy; a list of results."""
    if name == "moments":
        return [X.mean(0, keepdims=True), (X**2).mean(0, keepdims=True)]
    if name in ("relu_backward_add", "norm_backward", "dots"):
        d = np.where(out > FLOOR, dout, 0)
        if name == "relu_backward_add":
            return [d + Y]
        if name == "norm_backward":
            return [d - X * scale - shift]
        return [d.sum(0, keepdims=True), (d * X).sum(0, keepdims=True)]
    total = X * scale + shift
    if name == "norm_add_relu":
        total = total + Y
    if name == "norm_add_norm_relu":
        total = total + Y * scale_y + shift_y
    return [np.maximum(total, FLOOR)]


def make(kind, rng, rows, columns):
    values = rng.standard_normal((rows, columns))
    return values * {"dense": 1, "sparse": rng.random((rows, columns)) < 0.2, "zero": 0}[kind]


@pytest.mark.parametrize("shape", [(64, 40), (30_000, 8)])
@pytest.mark.parametrize("mode", ["sizes_unknown", "sizes_known", "codegen"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_mixture_of_inputs(engine, name, mode, shape):
    dml = Dml(engine, mode)
    arguments = FUNCTIONS[name].split()
    results = ["first", "second"][: 2 if name in ("dots", "moments") else 1]
    program = f"""source("dml/layers/pixelwise.dml") as pixelwise
    [{", ".join(results)}] = pixelwise::{name}({", ".join(arguments)})
    """
    rng = np.random.default_rng(0)
    mixtures = list(itertools.product(["dense", "sparse", "zero"], repeat=len(arguments)))
    for number in rng.permutation(len(mixtures))[:81]:
        inputs = {
            argument: make(kind, rng, 1 if argument.startswith(("scale", "shift")) else shape[0], shape[1])
            for argument, kind in zip(arguments, mixtures[number], strict=True)
        }
        if "out" in inputs:
            inputs["out"] = np.maximum(inputs["out"], FLOOR * (number % 2))  # with ReLU's zeros or its floor
        found = dml(program, " ".join(results), **inputs)
        for actual, right in zip(
            found if len(results) == 2 else [found], expected(name, **inputs), strict=True
        ):
            assert np.abs(actual - right).max() <= 1e-13 * max(np.abs(right).max(), 1), mixtures[number]


@pytest.mark.parametrize("mode", ["sizes_unknown", "codegen"])
def test_nan_comes_through(engine, mode):
    dout, out, x = np.ones((50, 3)), np.ones((50, 3)), np.ones((50, 3))
    x[7, 1] = np.nan
    program = """source("dml/layers/pixelwise.dml") as pixelwise
    [mean, mean_sq] = pixelwise::moments(X)
    [sum, dot] = pixelwise::dots(dout, out, X)
    """
    for array in Dml(engine, mode)(program, "mean mean_sq dot", X=x, dout=dout, out=out):
        assert np.array_equal(np.isnan(array), [[False, True, False]])


def test_activations_stay_dense(engine):
    """What most of a trained network's channels look like; sparse formats would slow all that follows."""
    program = """source("dml/layers/pixelwise.dml") as pixelwise
    out = pixelwise::norm_relu(X, scale, shift)
    """
    inputs = {"X": make("dense", np.random.default_rng(0), 500, 20), "scale": np.ones((1, 20))}
    inputs["shift"] = np.full((1, 20), -2.0)
    for codegen in (False, True):
        out = engine.run(program, inputs, {"out": "matrix"}, codegen=codegen)["out"]
        assert not out.isInSparseFormat()
        assert (engine.to_numpy(out) > 0).all()
