"""Where activations and what a training step replaces lie, and who may read them."""

import numpy as np
import pytest
import torch
from dml_runner import Dml


def test_networks_walk_through_bf16(engine_bf16):
    """A pool, a shortcut's pixels and what the engine's own operators read of them."""
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.standard_normal((3 * 6 * 7, 10))).bfloat16().double().numpy()
    program = """source("dml/layers/pixels/pixelwise.dml") as pixelwise
    source("dml/layers/pixels/gather.dml") as gather
    source("dml/layers/pixels/conv2d.dml") as conv2d
    source("dml/layers/pixels/max_pool2d.dml") as pool
    ones = matrix(1, rows=1, cols=10)
    X = pixelwise::norm_backward(X, X, ones, 0*ones, 0*ones)
    S = gather::windows(3, 6, 7, 1, 2, 0)
    S_t = t(S)
    P = conv2d::pixels(X, S, 6, 7, 2)
    back = conv2d::pixels_backward(P, S_t, 6, 7, 2)
    out = pool::forward(X, gather::windows(3, 6, 7, 3, 2, 1), 6, 7, 3, 2)
    kept = pixelwise::first_of(X, out)
    total = sum(kept)
    cell = as.scalar(kept[2,3])
    part = kept[3:5, 2:4]
    turned = t(kept)
    """
    names = "back total:double cell:double part turned"
    back, total, cell, part, turned = Dml(engine_bf16, "fused")(program, names, X=x)
    images = x.reshape(3, 6, 7, 10)
    expected = np.zeros_like(images)
    expected[:, ::2, ::2] = images[:, ::2, ::2]
    assert np.array_equal(back, expected.reshape(x.shape))
    assert (total, cell) == (pytest.approx(x.sum()), x[1, 2])
    assert np.array_equal(part, x[2:5, 1:4]) and np.array_equal(turned, x.T)


@pytest.mark.parametrize("reading", ["Z = Y + 1", "Z = pixelwise::as_fp64(Y)", "Z = t(Y)", "Z = Y[1,1]"])
def test_whoever_reads_a_matrix_that_an_operator_has_taken_fails(engine_single, reading):
    """A result lies where the input was: reading the input must not give the result's values."""
    program = f"""source("dml/layers/pixels/pixelwise.dml") as pixelwise
    ones = matrix(1, rows=1, cols=8)
    Y = pixelwise::scaled(X, ones)
    out = pixelwise::shift_relu(Y, ones)
    {reading}
    """
    x = np.random.default_rng(0).standard_normal((10_000, 8))
    dml = Dml(engine_single, "fused")
    with pytest.raises(Exception, match=r"has used for its result|out of bounds"):
        dml(program, "out Z", X=x)
    twice = """source("dml/layers/pixels/pixelwise.dml") as pixelwise
    ones = matrix(1, rows=1, cols=8)
    Y = pixelwise::scaled(X, ones)
    more = pixelwise::sum_backward(Y, Y)
    other = pixelwise::scaled(X, 2*ones)
    third = pixelwise::scaled(X, 3*ones)
    """
    single = x.astype(np.float32)
    for factor, found in zip((2, 2, 3), dml(twice, "more other third", X=x), strict=True):
        assert np.array_equal(found, single * np.float32(factor)), "two matrices in one place"


def test_bytes_of_activations_are_recorded(engine_single, engine_bf16):
    """Also where one whose memory was taken is handed on, to a function that does not read it."""
    program = """source("dml/layers/pixels/pixelwise.dml") as pixelwise
    second = function(matrix[double] A, matrix[double] B) return (matrix[double] C) {
      while(FALSE){}
      C = B
    }
    zeros = matrix(0, rows=1, cols=8)
    Y = pixelwise::norm_relu(X, zeros, zeros)
    out = pixelwise::shift_relu(Y, zeros)
    Z = second(Y, out)
    """
    x = np.ones((10_000, 8))
    for engine, size in ((engine_single, 4), (engine_bf16, 2)):
        engine.run(program, {"X": x}, {"Z": "matrix"})
        with engine.record() as calls:
            engine.run(program, {"X": x}, {"Z": "matrix"})
        [call] = [call for call in calls if call.function.endswith(".second")]
        assert [call.operands[name].bytes for name in "ABC"] == [0, size * x.size, size * x.size]


def test_the_engines_operators_read_activations_in_fp32(engine_single):
    """To the engine its blocks of FP32 values are whole in any row (tests/engine/test_engine_canaries.py)."""
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((40, 12)), rng.standard_normal((12, 5))
    s = (rng.random((30, 40)) < 0.1) * 1.0
    program = """source("dml/layers/pixels/pixelwise.dml") as pixelwise
    X = pixelwise::scaled(X, matrix(1, rows=1, cols=12))
    while(FALSE){}
    more = X + 1
    self = t(X) %*% X
    part = X[3:5, 2:4]
    rows = rowSums(X)
    shaped = matrix(X, rows=20, cols=24)
    below = rbind(X, X)
    beside = cbind(X, X)
    picked = S %*% X
    product = X %*% W
    positive = X * (X > 0)
    turned = t(X)
    cell = as.scalar(X[2,3])
    total = sum(X)
    X[2,2] = 7
    """
    names = (
        "more self part rows shaped below beside picked product positive turned X cell:double total:double"
    )
    found = Dml(engine_single, "fused")(program, names, X=x, W=w, S=s)
    x = x.astype(np.float32).astype(np.float64)
    changed = x.copy()
    changed[1, 1] = 7
    expected = [x + 1, x.T @ x, x[2:5, 1:4], x.sum(1, keepdims=True), x.reshape(20, 24), np.vstack([x, x])]
    expected += [np.hstack([x, x]), s @ x, x @ w, x * (x > 0), x.T, changed, x[1, 2], x.sum()]
    for name, value, right in zip(names.split(), found, expected, strict=True):
        tolerance = 1e-6 if name in ("self", "picked", "product") else 1e-14  # products are of FP32
        assert np.abs(value - right).max() <= tolerance * np.abs(right).max(), name


LISTS = """source("dml/layers/pixels/pixelwise.dml") as pixelwise
ones = matrix(1, rows=1, cols=8)
A = pixelwise::scaled(X, ones)
B = pixelwise::scaled(X, 2*ones)
C = pixelwise::scaled(X, 3*ones)
replaced = list(A, B)
kept = list(B, C)
"""


@pytest.fixture
def lists(engine_single):
    """Handles of the lists [X, 2 X] and [2 X, 3 X], which share a matrix, and X."""
    x = np.random.default_rng(0).standard_normal((10_000, 8)).astype("f4")
    found = engine_single.run(LISTS, {"X": x}, {"replaced": "list", "kept": "list"})
    return found["replaced"], found["kept"], x


def read(engine, handle):
    """The matrices of a list."""
    return [engine.to_numpy(matrix) for matrix in engine.list_items(handle)]


def test_later_results_lie_where_replaced_lists_were(engine_single, lists):
    replaced, kept, x = lists
    engine_single.recycle([replaced], keep=[kept])
    fresh = engine_single.run(LISTS, {"X": 5 * x}, {"replaced": "list"})["replaced"]
    assert np.array_equal(read(engine_single, fresh)[0], 5 * x)
    assert all(np.array_equal(a, b) for a, b in zip(read(engine_single, kept), [2 * x, 3 * x], strict=True))


def test_whoever_reads_a_replaced_list_fails(engine_single, lists):
    replaced, kept, _ = lists
    engine_single.recycle([replaced], keep=[kept])
    first, second = engine_single.list_items(replaced)
    assert engine_single.to_numpy(second).any(), "it is in the other list, too"
    with pytest.raises(Exception, match="has used for its result"):
        engine_single.to_numpy(first)


def test_lists_are_replaced_once(engine_single, lists):
    """Else two later results would lie in one place."""
    replaced, kept, x = lists
    engine_single.recycle([replaced, replaced], keep=[kept])
    engine_single.recycle([replaced], keep=[kept])
    found = engine_single.run(LISTS, {"X": x}, {"replaced": "list", "kept": "list"})
    assert all(
        np.array_equal(a, b) for a, b in zip(read(engine_single, found["replaced"]), [x, 2 * x], strict=True)
    )


def test_in_double_precision_replaced_lists_are_left_to_the_collector(engine):
    found = engine.run(LISTS, {"X": np.ones((10_000, 8))}, {"replaced": "list", "kept": "list"})
    engine.recycle([found["replaced"]], keep=[])
    assert read(engine, found["replaced"])[1].min() == 2
