"""The native helper's functions without a JVM: what they say and leave alone when something fails."""

import os
import subprocess
import sys

import numpy as np
import pytest
from native_library import LIBRARY, SANITIZED, Shape
from native_reference import convolution, filters, floats, pixel_major

FAILED, NO_MEMORY, WRONG_SIZES, NOT_PINNED = -1, -2, -3, -4
LARGEST = 2**31 - 1

pytestmark = pytest.mark.skipif(LIBRARY is None, reason="no native helper")


@pytest.mark.parametrize("missing", ["images", "gradient", "filters"])
@pytest.mark.parametrize("fails", [1, 2, 3])
def test_an_array_that_the_jvm_does_not_give_is_an_error(helper, capfd, missing, fails):
    """Not another operation, which follows from the arrays that there are."""
    s = Shape(3, 2, 4, 4, 5, 3, 3, pad_h=1, pad_w=1)
    x, f, d, out, df, dx = convolution(s)
    operands = {"images": pixel_major(x), "gradient": pixel_major(d), "filters": filters(f)}
    shapes = {
        "images": pixel_major(dx).shape,
        "gradient": pixel_major(out).shape,
        "filters": filters(df).shape,
    }
    helper.pins_that_fail = {fails}
    status, found = helper.pixels(
        *(None if n == missing else a for n, a in operands.items()), shapes[missing], s
    )
    assert status == NOT_PINNED and (found == 7).all()
    assert "the JVM gave no access to an array" in capfd.readouterr().err


@pytest.mark.parametrize("fails", [1, 2, 3, 4])
def test_the_engine_is_told_of_an_array_that_the_jvm_does_not_give(helper, fails):
    """By -1 alone, with which its own Java takes over."""
    s = Shape(2, 2, 3, 3, 2, 3, 3)
    x, f, d, *_ = convolution(s)
    x, f, d = (a.reshape(len(a), -1).copy() for a in (x, f, d))
    helper.pins_that_fail = {fails}
    bias = helper.convolve("dconv2dBiasAddDense", x, f, d.shape, s, bias=np.ones((2, 1)))
    assert bias[0] == FAILED
    if fails < 4:
        assert helper.multiply(x, np.ones((x.shape[1], 3)))[0] == FAILED
        assert helper.convolve("conv2dDense", x, f, d.shape, s)[0] == FAILED
        assert helper.convolve("conv2dBackwardFilterDense", x, d, f.shape, s)[0] == FAILED
        assert helper.convolve("conv2dBackwardDataDense", f, d, x.shape, s)[0] == FAILED
    if fails < 3:
        assert helper.tsmm(x, True)[0] == FAILED


@pytest.mark.parametrize(
    ("s", "says"),
    [
        (Shape(-1, 1, 3, 3, 1, 3, 3), "a negative size"),
        (Shape(1, 1, 3, 3, 1, 3, 3, stride_h=0, P=1, Q=1), "a stride below 1"),
        (Shape(1, 1, 3, 3, 1, 3, 3, pad_w=-1, P=1, Q=1), "a padding below 0"),
        (Shape(LARGEST, LARGEST, LARGEST, LARGEST, 1, 1, 1, P=1, Q=1), "more values than a number can say"),
        (Shape(1, 1, 3, 3, 2**16, 2**15, 1, P=1, Q=1), "more values than an array holds"),
        (Shape(1, 1, 3, 3, 1, 3, 3, P=2**16, Q=2**15), "more values than an array holds"),
    ],
    ids=str,
)
def test_sizes_that_cannot_be_are_errors(helper, capfd, s, says):
    x = np.ones((1, 9))
    for name in ("conv2dDense", "conv2dBackwardFilterDense", "conv2dBackwardDataDense"):
        status, found = helper.convolve(name, x, x, (1, 1), s)
        assert status == FAILED and found == 7
    for operands in ((x, None, x), (x, x, None), (None, x, x)):
        status, found = helper.pixels(*(o if o is None else floats(o) for o in operands), (1, 1), s)
        assert status == WRONG_SIZES and found == 7
    assert capfd.readouterr().err.count(says) == 6


def test_products_of_sizes_that_cannot_be_are_errors(helper):
    one = np.ones((1, 1))
    for m, k, n in ((-1, 1, 1), (1, -1, 1), (2**16, 1, 2**15), (2**16, 2**15, 1), (1, 2**15, 2**16)):
        out = np.full((1, 1), 7.0)
        assert helper.call("dmmdd", one, one, out, m, k, n, 2) == FAILED and out == 7
    assert helper.call("tsmm", one, out, 2**16, 2**15, True, 2) == FAILED
    assert helper.call("tsmm", one, out, -1, 1, False, 2) == FAILED and out == 7


def test_operands_that_are_missing_or_too_many_are_errors(helper):
    s, x = Shape(1, 1, 1, 1, 1, 1, 1), floats([[1]])
    for operands in ((None, None, None), (None, x, None), (None, None, x)):
        assert helper.pixels(*operands, (1, 1), s)[0] == WRONG_SIZES
    assert helper.call("sconv2dBiasAddDense", x, None, x, None, *vars(s).values(), 1) == WRONG_SIZES
    assert helper.pixels(x, None, None, (1, 1), Shape(1, 1, 3, 3, 1, 3, 3))[0] == WRONG_SIZES


NO_ROOM = """
import resource, sys
import numpy as np
sys.path.insert(0, "tests/support")
from native_library import Helper, Shape
helper = Helper(sys.argv[1], "bf16" if sys.argv[2] == "bf16" else "single")
m, k, n = 4000, 3000, 2000
a, b = np.ones((m, k)), np.ones((k, n))
a32, b32, g32 = np.ones((m, k), "f4"), np.ones((k, n), "f4"), np.ones((m, n), "f4")
out, out32 = np.full((m, n), 7.0), np.full((k, n), 7, "f4")
helper.multiply(np.ones((64, 64)), np.ones((64, 64)))  # its threads are there
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**23, used + 2**23))
print(helper.call("dmmdd", a, b, out, m, k, n, 2), out.any())
shape = Shape(m, k, 1, 1, n, 1, 1)
print(helper.call("sconv2dBiasAddDense", a32, g32, None, out32, *vars(shape).values(), 2))
"""


@pytest.mark.skipif(SANITIZED in os.environ, reason="sanitizers need address space")
def test_without_memory_a_code_says_so_and_the_engine_finds_zeros(precision):
    """The engine's own Java, which takes over then, adds to what is in the result."""
    done = subprocess.run([sys.executable, "-c", NO_ROOM, LIBRARY, precision], capture_output=True, text=True)
    assert done.stdout.splitlines() == [f"{FAILED} False", str(NO_MEMORY)], done.stderr
    assert done.stderr.count("found no memory") + done.stderr.count("memory") >= 2
