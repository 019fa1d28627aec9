"""Tensors on their way between machines (dml/cluster/wire.dml), in FP64 and as pairs of FP32 values."""

import numpy as np
import pytest
from dml_runner import Dml

# a value, a few, a unit, a little more, odd numbers
SHAPES = [(1, 1), (3, 7), (2000, 1), (50, 41), (1, 2001), (4001, 3)]
PROGRAM = """source("dml/cluster/wire.dml") as wire
theta = wire::flatten(list(A, B, C, D, E, F))
sum = wire::add(theta, theta)
tensors = matrix(0, rows=6, cols=4)
tensors[,3:4] = sizes
back = wire::unflatten(sum, tensors, 0)
A2 = as.matrix(back[1])
B2 = as.matrix(back[2])
C2 = as.matrix(back[3])
D2 = as.matrix(back[4])
E2 = as.matrix(back[5])
F2 = as.matrix(back[6])
"""
NAMES = "theta A2 B2 C2 D2 E2 F2"


@pytest.fixture(params=["wide_engine", "wide_engine-fused", "engine_single-fused"])
def wire(request):
    """DML, and the type of what travels."""
    engine, _, mode = request.param.partition("-")
    dml = Dml(request.getfixturevalue(engine), mode or "sizes_unknown")
    return dml, np.float32 if dml.engine.fp32 and mode else np.float64


def test_sums_come_back_as_they_were_sent(wire):
    dml, kind = wire
    rng = np.random.default_rng(0)
    sent = {name: rng.standard_normal(shape) for name, shape in zip("ABCDEF", SHAPES, strict=True)}
    theta, *back = dml(PROGRAM, NAMES, sizes=np.array(SHAPES, float), **sent)
    units = sum(-(-rows * columns // 2000) for rows, columns in SHAPES)
    assert theta.shape == (units * (1 if kind is np.float32 else 2), 1000)
    for found, values in zip(back, sent.values(), strict=True):
        assert np.array_equal(found, 2 * values.astype(kind))


def test_what_is_not_a_number_and_zeros_come_back(wire):
    dml, kind = wire
    sent = {name: np.zeros(shape) for name, shape in zip("ABCDEF", SHAPES, strict=True)}
    sent["B"][0, :3] = np.nan, np.inf, -np.inf
    sent["F"][-1, -1] = 3
    _, *back = dml(PROGRAM, NAMES, sizes=np.array(SHAPES, float), **sent)
    for found, values in zip(back, sent.values(), strict=True):
        np.testing.assert_allclose(found, 2 * values, rtol=0, atol=1e-44 if kind is np.float32 else 3e-300)


def test_a_file_keeps_every_bit(wire, tmp_path):
    """Of pairs of FP32 values too, which as FP64 may be anything, a signalling NaN included."""
    dml, kind = wire
    rng = np.random.default_rng(0)
    values = rng.integers(0, 2**32, 4000, dtype=np.uint32).view(np.float32)
    values = np.where(np.isfinite(values), values, 1).astype(np.float64).reshape(40, 100)
    write = f"""source("dml/cluster/wire.dml") as wire
    theta = wire::flatten(list(A))
    write(theta, "{tmp_path}/theta", format="binary")
    done = 1.0
    """
    dml(write, "done:double", A=values)
    read = f"""source("dml/cluster/wire.dml") as wire
    theta = read("{tmp_path}/theta")
    A = wire::unpack(theta, 1, 40, 100)
    """
    assert np.array_equal(dml(read, "A"), values.astype(kind))


def test_gradients_of_what_is_not_trained_take_a_unit(wire):
    dml, _ = wire
    sent = {name: np.full((1, 1), 0.0) for name in "ABCDE"} | {"F": np.arange(6.0).reshape(2, 3)}
    program = PROGRAM.replace("unflatten(sum, tensors, 0)", "unflatten(sum, tensors, 1)")
    sizes = np.array([[9, 9]] * 5 + [[2, 3]], float)
    theta, *back = dml(program, NAMES, sizes=sizes, **sent)
    assert len(theta) in (6, 12)
    assert [tensor.shape for tensor in back] == [(1, 1)] * 5 + [(2, 3)]
    assert np.abs(back[-1] - 2 * sent["F"]).max() < 1e-40
