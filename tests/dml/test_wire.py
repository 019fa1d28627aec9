"""Tensors on their way between the machines of a cluster (dml/cluster/wire.dml)."""

import numpy as np
import pytest
from dml_runner import Dml

# a value, a few, two rows, a little more, odd numbers
SHAPES = [(1, 1), (3, 7), (2000, 1), (50, 41), (1, 2001), (4001, 3)]
PROGRAM = """source("dml/cluster/wire.dml") as wire
theta = wire::flatten(list(A, B, C, D, E, F))
sum = theta + theta
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


@pytest.fixture
def dml(wide_engine):
    """DML without known sizes, as the command line runs it."""
    return Dml(wide_engine, "sizes_unknown")


def test_sums_come_back_as_they_were_sent(dml):
    rng = np.random.default_rng(0)
    sent = {name: rng.standard_normal(shape) for name, shape in zip("ABCDEF", SHAPES, strict=True)}
    theta, *back = dml(PROGRAM, NAMES, sizes=np.array(SHAPES, float), **sent)
    assert theta.shape == (sum(-(-rows * columns // 1000) for rows, columns in SHAPES), 1000)
    for found, values in zip(back, sent.values(), strict=True):
        assert np.array_equal(found, 2 * values)


def test_what_is_not_a_number_and_zeros_come_back(dml):
    sent = {name: np.zeros(shape) for name, shape in zip("ABCDEF", SHAPES, strict=True)}
    sent["B"][0, :3] = np.nan, np.inf, -np.inf
    sent["F"][-1, -1] = 3
    _, *back = dml(PROGRAM, NAMES, sizes=np.array(SHAPES, float), **sent)
    for found, values in zip(back, sent.values(), strict=True):
        np.testing.assert_allclose(found, 2 * values, rtol=0, atol=3e-300)


def test_gradients_of_what_is_not_trained_take_a_row(dml):
    sent = {name: np.full((1, 1), 0.0) for name in "ABCDE"} | {"F": np.arange(6.0).reshape(2, 3)}
    program = PROGRAM.replace("unflatten(sum, tensors, 0)", "unflatten(sum, tensors, 1)")
    sizes = np.array([[9, 9]] * 5 + [[2, 3]], float)
    theta, *back = dml(program, NAMES, sizes=sizes, **sent)
    assert len(theta) == 6
    assert [tensor.shape for tensor in back] == [(1, 1)] * 5 + [(2, 3)]
    assert np.abs(back[-1] - 2 * sent["F"]).max() < 1e-290
