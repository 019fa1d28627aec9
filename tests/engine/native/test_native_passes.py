"""The native helper's passes and pools without a JVM, on FP32 and on bf16 values, against NumPy and PyTorch.

They need no processor that multiplies bf16 values.
"""

import numpy as np
import pytest
import torch
from native_library import LIBRARY
from native_reference import floats, from_pairs, to_pairs
from torch.nn import functional

pytestmark = pytest.mark.skipif(LIBRARY is None, reason="no native helper")

POOL, POOL_BACKWARD = 20, 21


def relu(x):
    return np.where(np.isnan(x), x, np.maximum(x, 0))


def gated(d, out):
    return np.where(out > 0, d, 0)


# by the number in passes.h: how many operands there are beside the result's place r, and the formula
MAPS = {
    1: (1, lambda r, a, p, q: relu(a * p + q)),
    2: (2, lambda r, a, b, p, q: relu(a * p + q + b)),
    3: (0, lambda r, p: relu(r + p)),
    4: (1, lambda r, a, p: relu(r + p + a)),
    5: (1, lambda r, a: gated(r, a)),
    6: (2, lambda r, a, b: gated(r + a, b)),
    7: (1, lambda r, a: r + a),
    8: (1, lambda r, a, p, q, s: a * p - r * q - s),
    9: (2, lambda r, a, b, p, q, s: gated(r, a) * p - b * q - s),
    10: (1, lambda r, a, p: a * p),
}
WITH_NUMBERS = {  # as MAPS, with numbers in place of rows
    11: (3, lambda r, a, b, c, p, q, s: a * p + b * q + c * s),
    12: (2, lambda r, a, b, p, q, s: a * p + r * q + b * s),
    13: (2, lambda r, a, b, p, q, s: a * p + b * b * q),
    14: (2, lambda r, a, b, p, q, s: a / (np.sqrt(b) + p)),
}
SUMS = {
    15: (1, lambda a: [a]),
    16: (1, lambda a: [a * a]),
    17: (1, lambda a: [a, a * a]),
    18: (2, lambda a, b: [a, a * b]),
    19: (3, lambda a, b, c: [gated(a, b), gated(a, b) * c]),
}
SHAPES = [(1, 1), (3, 5), (700, 13), (3000, 64), (33, 2048)]


def rounded(x):
    return from_pairs(to_pairs(x), x.shape)


@pytest.fixture(params=["fp32", "bf16"])
def storage(request):
    """How values are stored and read back, what is stored of them, and the bytes of one."""
    if request.param == "fp32":
        return lambda x: floats(x).copy(), lambda array, shape: array.reshape(shape), floats, 4
    return to_pairs, from_pairs, rounded, 2


@pytest.fixture(params=[1, 3])
def threads(request):
    return request.param


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("number", MAPS)
def test_maps(helper, storage, threads, number, shape):
    store, read, stored, size = storage
    count, formula = MAPS[number]
    rng = np.random.default_rng(number)
    values = [stored(rng.standard_normal(shape)) for _ in range(count + 1)]
    rows = rng.standard_normal((3, shape[1]))
    used = formula.__code__.co_argcount - 1 - count
    result, operands = store(values[0]), [store(value) for value in values[1:]]
    given = [*operands, *[None] * (2 - count), rows.view(np.float32) if used else None]
    assert helper.run_pass(number, given, result, (*shape, 1, 1), size, threads=threads) == 0
    if size == 2:
        rows = rows.astype(np.float32)
    expected = formula(*[value.astype(np.float64) for value in values], *rows[:used].astype(np.float64))
    found = read(result, shape)
    if size == 4:
        assert np.array_equal(found, expected.astype(np.float32))
    else:  # rounded once to bf16; before, a few times to FP32
        assert np.all(np.abs(found - expected) <= 2**-8 * np.abs(expected) + 1e-5)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("number", WITH_NUMBERS)
def test_maps_with_numbers(helper, threads, number, shape):
    count, formula = WITH_NUMBERS[number]
    rng = np.random.default_rng(number)
    values = [floats(rng.random(shape)) for _ in range(count + 1)]
    numbers = rng.random(3)
    result = values[0].copy()
    done = helper.run_pass(number, values[1:], result, (*shape, 1, 1), 4, threads=threads, numbers=numbers)
    assert done == 0
    expected = formula(*[value.astype(np.float64) for value in values], *numbers)
    assert np.array_equal(result.reshape(shape), expected.astype(np.float32).reshape(shape))


def test_a_sum_of_two_does_not_look_at_the_third(helper):
    x, y, result = floats(np.full((4, 4), 2.0)), floats(np.full((4, 4), 3.0)), floats(np.zeros((4, 4)))
    nothing = floats(np.full((4, 4), np.nan))
    assert helper.run_pass(11, [x, y, nothing], result, (4, 4, 1, 1), 4, numbers=[1.0, -1.0, 0.0]) == 0
    assert np.all(result == -1)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("number", SUMS)
def test_sums(helper, storage, threads, number, shape):
    store, _, stored, size = storage
    count, formula = SUMS[number]
    rng = np.random.default_rng(number)
    values = [stored(rng.standard_normal(shape)) for _ in range(count)]
    expected = [part.sum(0) for part in formula(*[value.astype(np.float64) for value in values])]
    result = np.full((len(expected), shape[1]), 7.0)
    operands = [store(value) for value in values]
    sizes = (*shape, 1, 1)
    assert helper.run_pass(number, operands, result.view(np.float32), sizes, size, threads=threads) == 0
    assert np.abs(result - expected).max() <= (1e-13 if size == 4 else 1e-6) * shape[0]


def test_not_a_number_passes_a_relu_and_a_pool(helper, storage):
    store, read, _, size = storage
    x = np.linspace(-3, 3, 64).reshape(16, 4)
    x[5, 1] = np.nan
    result, rows = store(np.zeros((16, 4))), np.vstack([np.ones(4), np.zeros((2, 4))])
    assert helper.run_pass(1, [store(x), None, rows.view(np.float32)], result, (16, 4, 1, 1), size) == 0
    assert np.array_equal(np.isnan(read(result, (16, 4))), np.isnan(x))
    result = store(np.zeros((4, 4)))
    assert helper.run_pass(POOL, [store(x)], result, (1, 4, 4, 4), size, (3, 2)) == 0
    assert np.isnan(read(result, (4, 4))).sum() == 4, "the windows that see the pixel"


@pytest.mark.parametrize("sizes", [(1, 1, 1, 1), (2, 3, 7, 5), (5, 64, 8, 8)], ids=str)
def test_max_pool(helper, storage, threads, sizes):
    store, read, stored, size = storage
    n, c, h, w = sizes
    rng = np.random.default_rng(0)
    x = stored(np.round(rng.standard_normal((n, h, w, c)), 1))  # with equal values in a window
    image = torch.from_numpy(x.transpose(0, 3, 1, 2).astype(np.float64)).requires_grad_()
    out = functional.max_pool2d(image, 3, 2, 1)
    d = stored(rng.standard_normal(tuple(out.permute(0, 2, 3, 1).shape)))
    out.backward(torch.from_numpy(d.transpose(0, 3, 1, 2).astype(np.float64)))
    right = out.detach().permute(0, 2, 3, 1).numpy()
    result, gradient = store(np.zeros(right.shape)), store(np.zeros(x.shape))
    assert helper.run_pass(POOL, [store(x)], result, sizes, size, (3, 2), threads) == 0
    assert np.array_equal(read(result, right.shape), right)
    operands = [store(d), result, store(x)]
    assert helper.run_pass(POOL_BACKWARD, operands, gradient, sizes, size, (3, 2), threads) == 0
    expected = image.grad.permute(0, 2, 3, 1).numpy()
    tolerance = 1e-6 if size == 4 else 2**-8
    assert np.all(np.abs(read(gradient, x.shape) - expected) <= tolerance * np.abs(expected) + 1e-6)


def test_what_is_no_pass_is_refused(helper):
    x = floats(np.ones((4, 4)))
    assert helper.run_pass(99, [x], x.copy(), (4, 4, 1, 1), 4) == -3
    assert helper.run_pass(1, [x, None, None], x.copy(), (-4, 4, 1, 1), 4) == -3
    assert helper.run_pass(15, [None, None, None], x.copy(), (4, 4, 1, 1), 4) == -3
