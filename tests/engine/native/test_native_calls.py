"""The native helper's functions without a JVM, against NumPy, and what they say when something fails.

With -m long the same tests run under AddressSanitizer and UndefinedBehaviorSanitizer.
"""

import os
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
import pytest
from helper_build import load_build_script
from native_library import Helper, Shape
from numpy.lib.stride_tricks import sliding_window_view

from sysds_resnet.engine.jvm import multiply as blas

SANITIZED = "SYSDS_RESNET_SANITIZED_HELPER"  # a library to test in the place of the installed one
LIBRARY = os.environ.get(SANITIZED) or blas.helper_library()
# Largest error relative to the largest value, by what is multiplied.
BOUNDS = {"single": 3e-6, "bf16": 1.2e-2}
FAILED, NO_MEMORY, WRONG_SIZES, NOT_PINNED = -1, -2, -3, -4

pytestmark = pytest.mark.skipif(LIBRARY is None, reason="no native helper")
load = cache(lambda precision: Helper(LIBRARY, precision))


@pytest.fixture(params=["single", "bf16"])
def precision(request):
    if request.param == "bf16" and not blas.has_bf16():
        pytest.skip("no bf16 in this CPU")
    return request.param


@pytest.fixture
def helper(precision):
    found = load(precision)
    yield found
    found.pins_that_fail = set()


@pytest.fixture(params=[1, 3, 8])
def threads(request):
    return request.param


def floats(array):
    return np.ascontiguousarray(array, np.float32)


def assert_near(result, expected, bound):
    status, found = result
    assert status >= 0
    assert np.abs(found - expected.reshape(found.shape)).max(initial=0) <= bound * np.abs(expected).max(
        initial=1
    )


def windows(x, s):
    """What each output of a convolution sees, of shape (N, P, Q, C, R, S)."""
    after = [(s.P - 1) * s.stride_h + s.R - s.H - s.pad_h, (s.Q - 1) * s.stride_w + s.S - s.W - s.pad_w]
    padded = np.pad(x, [(0, 0), (0, 0), (s.pad_h, max(after[0], 0)), (s.pad_w, max(after[1], 0))])
    seen = sliding_window_view(padded, (s.R, s.S), (2, 3))[:, :, :: s.stride_h, :: s.stride_w]
    return seen[:, :, : s.P, : s.Q].transpose(0, 2, 3, 1, 4, 5)


def convolution(s, seed=0):
    """Images, filters, gradient wrt the outputs; the outputs, gradients wrt filters and images."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((s.N, s.C, s.H, s.W))
    f = rng.standard_normal((s.K, s.C, s.R, s.S))
    d = rng.standard_normal((s.N, s.K, s.P, s.Q))
    out = np.einsum("npqcrs,kcrs->nkpq", windows(x, s), f)
    df = np.einsum("npqcrs,nkpq->kcrs", windows(x, s), d)
    size = (s.H + s.pad_h + s.R + s.stride_h * s.P, s.W + s.pad_w + s.S + s.stride_w * s.Q)
    dx = np.zeros((s.N, s.C, *size))
    for r in range(s.R):
        for c in range(s.S):
            rows = slice(r, r + s.stride_h * s.P, s.stride_h)
            columns = slice(c, c + s.stride_w * s.Q, s.stride_w)
            dx[:, :, rows, columns] += np.einsum("nkpq,kc->ncpq", d, f[:, :, r, c])
    return x, f, d, out, df, dx[:, :, s.pad_h : s.pad_h + s.H, s.pad_w : s.pad_w + s.W]


def pixel_major(images):
    return floats(images.transpose(0, 2, 3, 1).reshape(-1, images.shape[1]))


def filters(f):
    return floats(f.transpose(2, 3, 1, 0).reshape(-1, f.shape[0]))


# Results


@pytest.mark.parametrize(
    "shape", [(1, 1, 1), (1, 7, 1), (5, 3, 2), (130, 17, 33), (3, 901, 5), (517, 64, 96)], ids=str
)
def test_products(helper, precision, threads, shape):
    m, k, n = shape
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((m, k)), rng.standard_normal((k, n))
    bound, s = BOUNDS[precision], Shape(m, k, 1, 1, n, 1, 1)
    assert_near(helper.multiply(a, b, threads), a @ b, bound)
    assert helper.multiply(a, b, threads)[0] == m * n
    g = floats(rng.standard_normal((m, n)))
    a, b = floats(a), floats(b)
    assert_near(helper.pixels(a, None, b, (m, n), s, threads), a @ b, bound)
    assert_near(helper.pixels(a, g, None, (k, n), s, threads), a.T @ g, bound)
    assert_near(helper.pixels(None, g, b, (m, k), s, threads), g @ b.T, bound)


@pytest.mark.parametrize("shape", [(1, 1), (50, 1), (1, 9), (700, 13)], ids=str)
def test_products_with_itself_are_in_single_precision(helper, threads, shape):
    x = np.random.default_rng(0).random(shape)
    assert_near(helper.tsmm(x, True, threads), x.T @ x, BOUNDS["single"])
    assert_near(helper.tsmm(x, False, threads), x @ x.T, BOUNDS["single"])
    m, k = shape
    gram = helper.pixels(floats(x), None, None, (k, k), Shape(m, k, 1, 1, k, 1, 1), threads)
    assert_near(gram, x.T @ x, BOUNDS["single"])


@pytest.mark.parametrize(
    "s",
    [
        Shape(1, 1, 1, 1, 1, 1, 1),
        Shape(2, 3, 1, 1, 4, 3, 3, pad_h=1, pad_w=1),  # one pixel
        Shape(4, 3, 9, 8, 5, 3, 2, 2, 1, 1, 0),
        Shape(5, 2, 7, 7, 16, 7, 7, 2, 2, 3, 3),
        Shape(9, 16, 5, 6, 16, 3, 3, 1, 1, 1, 1),
    ],
    ids=str,
)
def test_convolutions(helper, precision, threads, s):
    x, f, d, out, df, dx = convolution(s)
    bias, bound = np.arange(1.0, s.K + 1)[:, None], BOUNDS[precision]
    flat = [a.reshape(len(a), -1).copy() for a in (x, f, d)]
    calls = {
        "conv2dDense": (flat[0], flat[1], out),
        "conv2dBackwardFilterDense": (flat[0], flat[2], df),
        "conv2dBackwardDataDense": (flat[1], flat[2], dx),
    }
    for name, (first, second, right) in calls.items():
        assert_near(helper.convolve(name, first, second, right.shape, s, threads), right, bound)
    biased = helper.convolve("dconv2dBiasAddDense", *flat[:2], out.shape, s, threads, bias=bias)
    assert_near(biased, out + bias[:, :, None], bound)
    x, d, f = pixel_major(x), pixel_major(d), filters(f)
    assert_near(helper.pixels(x, None, f, d.shape, s, threads), pixel_major(out), bound)
    assert_near(helper.pixels(x, d, None, f.shape, s, threads), filters(df), bound)
    assert_near(helper.pixels(None, d, f, x.shape, s, threads), pixel_major(dx), bound)


@pytest.mark.parametrize("sizes", [(0, 3, 2), (3, 0, 2), (3, 2, 0), (0, 0, 0)], ids=str)
def test_products_of_nothing_are_zeros(helper, threads, sizes):
    m, k, n = sizes
    a, b, g, s = np.ones((m, k)), np.ones((k, n)), np.ones((m, n)), Shape(m, k, 1, 1, n, 1, 1)
    results = [
        helper.multiply(a, b, threads),
        helper.pixels(floats(a), None, floats(b), (m, n), s, threads),
        helper.pixels(floats(a), floats(g), None, (k, n), s, threads),
        helper.pixels(None, floats(g), floats(b), (m, k), s, threads),
        helper.tsmm(np.ones((0, k)), True, threads),
        helper.tsmm(np.ones((m, 0)), False, threads),
    ]
    right = [a @ b, a @ b, a.T @ g, g @ b.T, np.zeros((k, k)), np.zeros((m, m))]
    for result, expected in zip(results, right, strict=True):
        assert_near(result, expected, 0)
    assert results[0][0] == 0, "none of the values is another than 0"


@pytest.mark.parametrize(
    "s",
    [
        Shape(0, 3, 4, 4, 2, 3, 3),  # no images
        Shape(2, 0, 4, 4, 2, 3, 3),  # no channels
        Shape(2, 3, 4, 4, 0, 3, 3),  # no filters
        Shape(2, 3, 0, 4, 2, 3, 3, pad_h=2, P=2, Q=2),  # no pixels but padding
        Shape(2, 3, 4, 4, 2, 0, 3, P=5, Q=2),
        Shape(2, 3, 2, 2, 2, 3, 3),  # filters that are larger than images
    ],
    ids=str,
)
def test_convolutions_of_nothing_are_zeros(helper, threads, s):
    x, f, d = (
        np.ones((s.N, s.C * s.H * s.W)),
        np.ones((s.K, s.C * s.R * s.S)),
        np.ones((s.N, s.K * s.P * s.Q)),
    )
    x32, f32, d32 = map(floats, (x, f, d))
    bias = helper.convolve("dconv2dBiasAddDense", x, f, d.shape, s, threads, bias=np.full((s.K, 1), 2.0))
    assert_near(bias, np.full(d.shape, 2.0), 0)
    for result in (
        helper.convolve("conv2dDense", x, f, d.shape, s, threads),
        helper.convolve("conv2dBackwardFilterDense", x, d, f.shape, s, threads),
        helper.convolve("conv2dBackwardDataDense", f, d, x.shape, s, threads),
        helper.pixels(x32, None, f32, d.shape, s, threads),
        helper.pixels(x32, d32, None, f.shape, s, threads),
        helper.pixels(None, d32, f32, x.shape, s, threads),
    ):
        assert_near(result, np.zeros(result[1].shape), 0)


# Failures


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


LARGEST = 2**31 - 1


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
    for operands in ((None, None, None), (None, x, None), (None, None, x), (x, x, x)):
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


CALLS = """
import sys
import numpy as np
sys.path[:0] = ["tests/support", "tests/engine/native"]
from native_library import Helper, Shape
import test_native_calls as calls
helper, rng = Helper(sys.argv[1], "single"), np.random.default_rng(0)
a, b = rng.standard_normal((300, 70)), rng.standard_normal((70, 50))
calls.assert_near(helper.multiply(a, b, 3), a @ b, 3e-6)
calls.assert_near(helper.tsmm(a, True, 3), a.T @ a, 3e-6)
for images in (1, 5):
    s = Shape(images, 8, 9, 9, 8, 3, 3, 1, 1, 1, 1)
    x, f, d, out, df, dx = calls.convolution(s)
    x, d, f = calls.pixel_major(x), calls.pixel_major(d), calls.filters(f)
    calls.assert_near(helper.pixels(x, None, f, d.shape, s, 3), calls.pixel_major(out), 3e-6)
    calls.assert_near(helper.pixels(x, d, None, f.shape, s, 3), calls.filters(df), 3e-6)
    calls.assert_near(helper.pixels(None, d, f, x.shape, s, 3), calls.pixel_major(dx), 3e-6)
print("right")
"""


@pytest.mark.parametrize(
    "setting",
    [
        "OMP_THREAD_LIMIT=1",
        "OMP_DYNAMIC=true",
        "OMP_MAX_ACTIVE_LEVELS=0",
        "OMP_NUM_THREADS=2,2",
        "ONEDNN_DEFAULT_FPMATH_MODE=BF16",
    ],
)
def test_what_the_environment_says_does_not_change_results(setting):
    name, value = setting.split("=")
    done = subprocess.run(
        [sys.executable, "-c", CALLS, LIBRARY],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[3],
        env={**os.environ, name: value},
    )
    assert (done.returncode, done.stdout) == (0, "right\n"), done.stderr


@pytest.mark.long
@pytest.mark.skipif(SANITIZED in os.environ, reason="these are the tests that it runs")
def test_sanitizers_find_nothing(tmp_path):
    build = load_build_script()
    try:
        distribution("onednn-devel-cpu-gomp")
    except PackageNotFoundError:
        pytest.skip("no headers of oneDNN")
    library, checks = tmp_path / build.LIBRARY, "-fsanitize=address,undefined"
    build.LOAD = ""  # the sanitizers' libraries must be loaded before Python
    flags = [flag for flag in build.FLAGS if flag != "-O3"]
    build.compile_helper(
        blas.HELPER_FOLDER / "helper.cpp",
        library,
        (*flags, "-O1", "-g", checks, "-fno-sanitize-recover=undefined"),
    )
    runtimes = [
        subprocess.run(["g++", f"-print-file-name={name}"], capture_output=True, text=True).stdout.strip()
        for name in ("libasan.so", "libubsan.so")
    ]
    environment = {
        SANITIZED: str(library),
        "LD_PRELOAD": ":".join(runtimes),
        "ASAN_OPTIONS": "detect_leaks=0",  # those of Python
    }
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--noconftest", __file__],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "runtime error" not in done.stderr + done.stdout
