"""The operators over activations, plain and fused, on every mixture of dense, sparse and empty inputs."""

import itertools

import numpy as np
import pytest
import torch
from dml_runner import Dml

from sysds_resnet.engine.jvm.classes import hidden
from sysds_resnet.engine.program import Program

FLOOR = 1e-300
FUNCTIONS = {
    "norm_relu": "X scale shift",
    "norm_add_relu": "X scale shift Y",
    "shift_relu": "X shift",
    "shift_add_relu": "X shift Y",
    "relu_backward": "dout out",
    "relu_backward_add": "dout Y out",
    "norm_backward": "dout X scale scale_x shift",
    "norm_relu_backward": "dout out X scale scale_x shift",
    "sum_backward": "dout Y",
    "sums": "X",
    "squares": "X",
    "moments": "X",
    "dots": "dout X",
    "relu_dots": "dout out X",
    "scaled": "X scale",
    "as_fp64": "X",
    "plus": "X Y",
    "weighted_sum": "X Y Z one two three",
    "weighted_sum_in_place": "X Y Z one two three",
    "weighted_square": "X Y one two",
    "over_root": "X out three",
}
NUMBERS = {"one": 0.9, "two": -3.0, "three": 1e-4}
# what each computes, in NumPy
EXPECTED = {
    "norm_relu": lambda x, scale, shift: np.maximum(x * scale + shift, FLOOR),
    "norm_add_relu": lambda x, scale, shift, y: np.maximum(x * scale + shift + y, FLOOR),
    "shift_relu": lambda x, shift: np.maximum(x + shift, FLOOR),
    "shift_add_relu": lambda x, shift, y: np.maximum(x + shift + y, FLOOR),
    "relu_backward": lambda dout, out: np.where(out > FLOOR, dout, 0),
    "relu_backward_add": lambda dout, y, out: np.where(out > FLOOR, dout + y, 0),
    "norm_backward": lambda dout, x, a, b, c: dout * a - x * b - c,
    "norm_relu_backward": lambda dout, out, x, a, b, c: np.where(out > FLOOR, dout, 0) * a - x * b - c,
    "sum_backward": lambda dout, y: dout + y,
    "sums": lambda x: x.sum(0, keepdims=True),
    "squares": lambda x: (x**2).sum(0, keepdims=True),
    "moments": lambda x: np.stack([x.sum(0), (x**2).sum(0)]),
    "dots": lambda dout, x: np.stack([dout.sum(0), (dout * x).sum(0)]),
    "relu_dots": lambda dout, out, x: EXPECTED["dots"](np.where(out > FLOOR, dout, 0), x),
    "scaled": lambda x, scale: x * scale,
    "as_fp64": lambda x: x,
    "plus": lambda x, y: x + y,
    "weighted_sum": lambda x, y, z, one, two, three: one * x + two * y + three * z,
    "weighted_sum_in_place": lambda *inputs: EXPECTED["weighted_sum"](*inputs),
    "weighted_square": lambda x, y, one, two: one * x + two * y**2,
    "over_root": lambda x, y, three: x / (np.sqrt(y) + three),
}
SUMS = ("sums", "squares", "moments", "dots", "relu_dots")
DENSE = ("norm_relu", "norm_add_relu", "shift_relu", "shift_add_relu", "relu_backward", "relu_backward_add")


def make(kind, rng, rows, columns):
    values = rng.standard_normal((rows, columns))
    return values * {"dense": 1, "sparse": rng.random((rows, columns)) < 0.2, "zero": 0}[kind]


@pytest.mark.parametrize(
    ("mode", "shape", "count"),
    [
        ("sizes_known", (64, 40), 10),
        # several threads for many rows, and rows that are no multiple of the processor's vectors
        ("fused", (30_000, 8), 3),
        ("fused", (50, 2), 12),
        *(
            pytest.param(mode, shape, 40, marks=pytest.mark.long)
            for mode, shape in [
                ("sizes_unknown", (64, 40)),
                ("sizes_known", (64, 40)),
                ("fused", (30_000, 8)),
                ("fused", (64, 40)),
                ("fused", (1, 40)),
            ]
        ),
    ],
)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_mixture_of_inputs(engine, name, mode, shape, count):
    """Of 81 mixtures of four inputs, those that are drawn."""
    dml = Dml(engine, mode)
    arguments = FUNCTIONS[name].split()
    program = f"""source("dml/layers/pixels/pixelwise.dml") as pixelwise
    result = pixelwise::{name}({", ".join(arguments)})
    """
    rng = np.random.default_rng(0)
    matrices = [argument for argument in arguments if argument not in NUMBERS]
    mixtures = list(itertools.product(["dense", "sparse", "zero"], repeat=len(matrices)))
    empty = len(mixtures) - 1
    # before each other one all are empty, which the engine may not remember
    numbers = [n for number in rng.permutation(empty)[:count] for n in (empty, number)]
    for number in numbers:
        inputs = {
            argument: make(kind, rng, 1 if argument.startswith(("scale", "shift")) else shape[0], shape[1])
            for argument, kind in zip(matrices, mixtures[number], strict=True)
        } | {argument: NUMBERS[argument] for argument in arguments if argument in NUMBERS}
        if "out" in inputs:
            inputs["out"] = np.maximum(inputs["out"], FLOOR)  # a ReLU's output, which is never sparse
        found = dml(program, "result", **inputs)
        expected = EXPECTED[name](*inputs.values())
        assert np.abs(found - expected).max() <= 1e-13 * max(np.abs(expected).max(), 1), mixtures[number]
        assert name not in DENSE or (found != 0).all(), "zeros turn a matrix sparse"


@pytest.mark.parametrize(
    "shape",
    [
        (30_000, 8),
        (50, 2),
        *(pytest.param(shape, marks=pytest.mark.long) for shape in [(64, 40), (1, 40), (3, 1)]),
    ],
)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_activations_in_fp32(engine_single, name, shape):
    """What NumPy gives in FP64 of the same FP32 values, rounded once at the end: bit by bit."""
    assert engine_single.storage == "fp32"
    arguments = FUNCTIONS[name].split()
    rng = np.random.default_rng(0)
    inputs, program = {}, 'source("dml/layers/pixels/pixelwise.dml") as pixelwise\n'
    for argument in arguments:
        if argument in NUMBERS:
            inputs[argument] = NUMBERS[argument]
        elif argument.startswith(("scale", "shift")):
            inputs[argument] = rng.standard_normal((1, shape[1]))
        else:
            inputs[argument] = rng.standard_normal(shape).astype(np.float32).astype(np.float64)
            program += f"{argument} = pixelwise::scaled({argument}, matrix(1, rows=1, cols={shape[1]}))\n"
    if "out" in inputs:
        inputs["out"] = np.maximum(inputs["out"], 0)
    program += f"result = pixelwise::{name}({', '.join(arguments)})"
    found = Dml(engine_single, "fused")(program, "result", **inputs)
    expected = EXPECTED[name](*inputs.values())
    if name in SUMS:
        assert np.abs(found - expected).max() <= 1e-13 * max(np.abs(expected).max(), shape[0])
    else:
        assert np.array_equal(found, expected if name == "as_fp64" else expected.astype(np.float32))


@pytest.mark.parametrize("shape", [(3, 5), (50, 2), (10_001, 9)])
@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name != "as_fp64"])
def test_activations_in_bf16(engine_bf16, name, shape):
    """What NumPy gives in FP64 of the same bf16 values, rounded at the end."""
    arguments = FUNCTIONS[name].split()
    rng = np.random.default_rng(0)
    inputs, program = {}, 'source("dml/layers/pixels/pixelwise.dml") as pixelwise\n'
    ones = f"matrix(1, rows=1, cols={shape[1]})"
    for argument in arguments:
        if argument in NUMBERS:
            inputs[argument] = NUMBERS[argument]
            continue
        rows = 1 if argument.startswith(("scale", "shift")) else shape[0]
        inputs[argument] = rng.standard_normal((rows, shape[1]))
        if rows > 1:
            inputs[argument] = torch.from_numpy(inputs[argument]).bfloat16().double().numpy()
            if argument != "out":  # by a pass that gives the values themselves, in bf16
                same = f"{argument}, {argument}, {ones}, 0*{ones}, 0*{ones}"
                program += f"{argument} = pixelwise::norm_backward({same})\n"
    if "out" in inputs:
        inputs["out"] = np.maximum(inputs["out"], 0)
        program += f"out = pixelwise::norm_relu(out, {ones}, matrix(0, rows=1, cols={shape[1]}))\n"
    program += f"result = pixelwise::{name}({', '.join(arguments)})"
    found = Dml(engine_bf16, "fused")(program, "result", **inputs)
    expected = EXPECTED[name](*inputs.values())
    if name in SUMS:
        assert np.abs(found - expected).max() <= 1e-6 * max(np.abs(expected).max(), shape[0])
    else:
        assert (np.abs(found - expected) <= 2**-8 * np.abs(expected) + 1e-5).all()


def instructions(engine, function):
    """Names of a function's instructions, without those that only move variables."""
    lines = [
        str(instruction).split("\N{DEGREE SIGN}")[1:]
        for block in engine._programs._jvm.java.util.ArrayList(function.getChildBlocks())
        for instruction in block.getInstructions()
    ]
    return [line[0] for line in lines if not line[0].endswith("var")]


def test_each_is_one_pass(engine):
    lines = ['source("dml/layers/pixels/pixelwise.dml") as pixelwise']
    for name, arguments in FUNCTIONS.items():
        values = ["x" if value not in NUMBERS else str(NUMBERS[value]) for value in arguments.split()]
        lines.append(f"{name}0 = pixelwise::{name}({', '.join(values)})")
    total = " + ".join(f"sum({name}0)" for name in FUNCTIONS)
    program = "\n".join([*lines, f"total = {total}"])
    engine.run(program, {"x": np.ones((1, 9))}, {"total": "double"})
    [script] = [script for key, script in engine._programs.compiled.items() if key[0] == program]
    compiled = hidden(script, "_prog")
    found = {
        name: instructions(engine, compiled.getFunctionProgramBlock(space, name))
        for space, name in engine._programs.functions(script)
    }
    assert found == {name: ["spoof"] for name in FUNCTIONS}


@pytest.mark.parametrize("mode", ["sizes_unknown", "fused"])
def test_nan_comes_through(engine, mode):
    dout, x = np.ones((50, 3)), np.ones((50, 3))
    x[7, 1] = np.nan
    program = """source("dml/layers/pixels/pixelwise.dml") as pixelwise
    total = pixelwise::sums(X)
    total_sq = pixelwise::squares(X)
    moments = pixelwise::moments(X)
    dots = pixelwise::dots(dout, X)
    """
    *sums, moments, dots = Dml(engine, mode)(program, "total total_sq moments dots", X=x, dout=dout)
    for row in (*sums, moments[:1], moments[1:], dots[1:]):
        assert np.array_equal(np.isnan(row), [[False, True, False]])


def test_activations_stay_dense(engine):
    """What most of a trained network's channels look like; sparse formats would slow all that follows."""
    program = """source("dml/layers/pixels/pixelwise.dml") as pixelwise
    out = pixelwise::norm_relu(X, scale, shift)
    """
    inputs = {"X": make("dense", np.random.default_rng(0), 500, 20), "scale": np.ones((1, 20))}
    inputs["shift"] = np.full((1, 20), -2.0)
    for fused in (False, True):
        place = "host" if fused else "plain"
        out = engine.run(Program(program, {"out": "matrix"}, place), inputs)["out"]
        assert not out.isInSparseFormat()
        assert (engine.to_numpy(out) > 0).all()
