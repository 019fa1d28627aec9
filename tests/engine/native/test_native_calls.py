"""The native helper's functions without a JVM, against NumPy, whatever the environment says.

With -m long the same tests, and those of failures, run under AddressSanitizer and UndefinedBehaviorSanitizer.
"""

import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
import pytest
from helper_build import load_build_script
from native_library import LIBRARY, SANITIZED, Shape
from native_reference import assert_near, convolution, filters, floats, from_pairs, pixel_major, to_pairs

from sysds_resnet.engine.jvm import multiply

# Largest error relative to the largest value, by what is multiplied.
BOUNDS = {"single": 3e-6, "bf16": 1.2e-2}
HERE = Path(__file__).parent
TESTS = [__file__, str(HERE / "test_native_failures.py")]

pytestmark = pytest.mark.skipif(LIBRARY is None, reason="no native helper")


@pytest.fixture(params=[1, 3, 8])
def threads(request):
    return request.param


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
        # each output sees each pixel, or each row of them
        Shape(6, 5, 2, 2, 7, 3, 3, 1, 1, 1, 1),
        Shape(6, 5, 2, 2, 7, 3, 3, 2, 2, 1, 1),
        Shape(3, 4, 3, 4, 5, 7, 7, 2, 2, 3, 3),
        Shape(3, 4, 2, 3, 5, 3, 3, 1, 1, 1, 1),
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


@pytest.mark.parametrize(
    "s",
    [
        Shape(70, 24, 1, 1, 40, 1, 1),
        Shape(3001, 256, 1, 1, 64, 1, 1),
        Shape(5, 24, 9, 7, 32, 3, 3, 2, 2, 1, 1, 5, 4),
        Shape(2, 24, 9, 7, 32, 3, 3, 1, 1, 1, 1),
        Shape(6, 24, 2, 2, 32, 3, 3, 1, 1, 1, 1),
    ],
    ids=str,
)
@pytest.mark.parametrize("precision", ["bf16"], indirect=True)
def test_values_in_bf16(helper, threads, s):
    """Images and gradients of bf16 values in pairs; filters and gradients wrt them are FP32."""
    x, f, d, out, df, dx = convolution(s)
    bound = BOUNDS["bf16"]

    def check(first, second, third, expected, in_pairs=True):
        result = to_pairs(np.zeros(expected.shape)) if in_pairs else floats(np.zeros(expected.shape))
        values = (s.N, s.C, s.H, s.W, s.K, s.R, s.S, s.stride_h, s.stride_w, s.pad_h, s.pad_w, s.P, s.Q)
        assert helper.call("sconv2dBiasAddDense", first, second, third, result, *values, threads) == 0
        assert_near((0, from_pairs(result, expected.shape) if in_pairs else result), expected, bound)

    images, gradient, factors = to_pairs(pixel_major(x)), to_pairs(pixel_major(d)), filters(f)
    check(images, None, factors, pixel_major(out))
    check(images, gradient, None, filters(df), in_pairs=False)
    check(None, gradient, factors, pixel_major(dx))
    if s.H == 1:
        x, d = pixel_major(x), pixel_major(d)
        check(images, None, None, x.T @ x, in_pairs=False)
        w = np.random.default_rng(1).standard_normal((s.C, s.K + s.C + 1))
        check(images, gradient, floats(w), np.hstack([d, x, np.ones((s.N, 1))]) @ w.T)


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


CALLS = """
import sys
import numpy as np
sys.path.insert(0, "tests/support")
from native_library import Helper, Shape
import native_reference as calls
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
        multiply.HELPER_FOLDER / "helper.cpp",
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
        # not with tests/conftest.py, whose imports take long and would run under the sanitizers, too
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--confcutdir={HERE}", *TESTS],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "runtime error" not in done.stderr + done.stdout
