"""The native helper (engine/native/helper.cpp) against NumPy and PyTorch, and what is chosen without it."""

import ctypes
import shutil
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from dml_runner import pixel_major, to_engine
from torch.nn import functional

from sysds_resnet.engine import Engine
from sysds_resnet.engine.jvm import multiply
from sysds_resnet.engine.spark.cluster import Cluster
from sysds_resnet.engine.spark.conf import executor_conf
from sysds_resnet.errors import NotAsAsked

GIB = 2**30
# Largest error of a product, relative to its largest value, by what is multiplied.
BOUNDS = {"single": 3e-6, "bf16": 1.2e-2}
PRODUCTS = """
source("dml/layers/pixels/product.dml") as product
C = A %*% B
B_t = t(B)
right = product::right_transposed(A, B_t)
A_t = t(A)
left = product::left_transposed(A_t, B)
"""
JOINED = """
source("dml/layers/pixels/product.dml") as product
C = product::joined(A, B, W)
"""
CONVOLUTIONS = """
out = conv2d(X, F, stride=[2,1], padding=[1,0], input_shape=[4,3,9,8], filter_shape=[5,3,3,2])
biased = bias_add(conv2d(X, F, stride=[2,1], padding=[1,0], input_shape=[4,3,9,8], filter_shape=[5,3,3,2]), b)
dF = conv2d_backward_filter(X, D, stride=[2,1], padding=[1,0], input_shape=[4,3,9,8], filter_shape=[5,3,3,2])
dX = conv2d_backward_data(F, D, stride=[2,1], padding=[1,0], input_shape=[4,3,9,8], filter_shape=[5,3,3,2])
"""

WINDOWS = """
source("dml/layers/pixels/gather.dml") as gather
source("dml/layers/pixels/conv2d.dml") as conv2d
S = gather::windows(N, H, W, K, stride, as.integer((K - 1)/2))
S_t = t(S)
out = conv2d::windows_forward(X, F, S, H, W, K, stride)
[dX, dF] = conv2d::windows_backward(D, X, F, S, S_t, H, W, K, stride)
alone = conv2d::windows_backward_filter(D, X, S, H, W, K, stride)
"""

pytestmark = pytest.mark.skipif(
    shutil.which("c++") is None and multiply.helper_problem() is not None, reason="no C++ compiler here"
)


# on a CPU without bf16 it is computed as "single"
BF16 = pytest.param("bf16", marks=[] if multiply.has_bf16() else [pytest.mark.long])


@pytest.fixture(scope="module", params=["single", BF16])
def precision(request):
    return request.param


@pytest.fixture(scope="module")
def start():
    """Start an engine, or take the one of this precision and number of threads."""
    with ExitStack() as engines:

        @cache
        def started(precision, threads):
            return engines.enter_context(Engine(precision, heap=2 * GIB, threads=threads))

        yield started


@pytest.fixture(scope="module")
def native(start, precision):
    engine = start(precision, 3)
    assert engine.multiply.native, engine.multiply
    if multiply.has_bf16():
        assert engine.multiply.precision == precision
    return engine


def relative_error(found, expected):
    return np.abs(found - expected).max() / (np.abs(expected).max() or 1)


@pytest.mark.parametrize(
    "shape",
    [
        (1, 1, 3),
        (5, 3, 2),
        (1000, 17, 33),
        (3001, 64, 256),  # several blocks of rows, the last one short
        (64, 5000, 50),  # a long sum
        (33, 2048, 1000),  # the final layer
    ],
)
def test_products(native, shape):
    m, k, n = shape
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((m, k)), rng.standard_normal((k, n))
    results = native.run(PRODUCTS, {"A": a, "B": b}, dict.fromkeys(("C", "left", "right"), "matrix"))
    errors = [relative_error(native.to_numpy(result), a @ b) for result in results.values()]
    assert max(errors) <= BOUNDS[native.multiply.precision]
    if min(shape) > 1:
        assert min(errors) > 1e-9, "the multiplies were in double precision"


@pytest.mark.parametrize("shape", [(1, 1, 1), (1000, 17, 33), (3001, 256, 64)])
def test_products_of_matrices_side_by_side(native, shape):
    m, f, k = shape
    rng = np.random.default_rng(0)
    a, b, w = (rng.standard_normal(size) for size in ((m, f), (m, k), (k, f + k + 1)))
    found = native.to_numpy(native.run(JOINED, {"A": a, "B": b, "W": w}, {"C": "matrix"})["C"])
    expected = np.hstack([a, b, np.ones((m, 1))]) @ w.T
    assert relative_error(found, expected) <= BOUNDS[native.multiply.precision]


@pytest.mark.parametrize("shape", [(50, 1), (1000, 7), (5000, 130)])
def test_self_products_are_in_single_precision(native, shape):
    x = np.random.default_rng(0).random(shape)
    results = native.run("G = t(X) %*% X\nH = X %*% t(X)\n", {"X": x}, {"G": "matrix", "H": "matrix"})
    assert relative_error(native.to_numpy(results["G"]), x.T @ x) <= BOUNDS["single"]
    assert relative_error(native.to_numpy(results["H"]), x @ x.T) <= BOUNDS["single"]


def test_norms_of_tensors_are_summed_in_double_precision(native):
    x = np.random.default_rng(0).random((300, 70)).astype(np.float32).astype(np.float64)
    program = 'source("dml/optim/tensors.dml") as tensors\ny = tensors::norm(X)'
    y = native.run(program, {"X": x}, {"y": "double"})["y"]
    assert y == pytest.approx(np.linalg.norm(x), rel=1e-13)


def test_not_a_number_and_infinity_come_through(native):
    a, b = np.ones((40, 30)), np.eye(30)
    a[3, 4], a[5, 6] = np.nan, np.inf
    found = native.to_numpy(native.run("C = A %*% B\n", {"A": a, "B": b}, {"C": "matrix"})["C"])
    assert np.isnan(found[3]).all() and not np.isfinite(found[5]).any()
    assert (found[7] == 1).all()


def test_convolutions_of_the_engine(native):
    """Its builtins, for programs that use them: strides and paddings that differ by direction."""
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.standard_normal((4, 3, 9, 8))).requires_grad_()
    weight = torch.from_numpy(rng.standard_normal((5, 3, 3, 2))).requires_grad_()
    bias = torch.from_numpy(rng.standard_normal(5))
    out = functional.conv2d(x, weight, stride=(2, 1), padding=(1, 0))
    dout = torch.from_numpy(rng.standard_normal(out.shape))
    out.backward(dout)
    expected = {"out": out, "biased": out + bias[:, None, None], "dF": weight.grad, "dX": x.grad}
    inputs = {
        "X": x.detach().numpy().reshape(4, -1),
        "F": weight.detach().numpy().reshape(5, -1),
        "D": dout.numpy().reshape(4, -1),
        "b": bias.numpy()[:, None],
    }
    results = native.run(CONVOLUTIONS, inputs, dict.fromkeys(expected, "matrix"))
    for name, tensor in expected.items():
        right = tensor.detach().numpy()
        found = native.to_numpy(results[name]).reshape(right.shape)
        assert relative_error(found, right) <= BOUNDS[native.multiply.precision], name


@pytest.fixture(scope="module", params=[1, 3])
def threaded(request, start, precision):
    return start(precision, request.param)


@pytest.mark.parametrize(
    "case",
    [
        ((1, 3, 9, 8), 5, 3, 1),  # fewer images than threads
        ((5, 3, 37, 51), 16, 7, 2),  # the stem, on odd sizes
        ((7, 20, 11, 6), 33, 3, 1),
        ((7, 32, 14, 14), 64, 3, 2),
        pytest.param(
            ((12, 64, 56, 56), 64, 3, 1),  # several groups of images for a thread, the last one short
            marks=pytest.mark.long,
        ),
    ],
    ids=str,
)
def test_convolutions_of_windows(threaded, case):
    """Pixel-major, as the network has them."""
    (n, c, h, w), filters, kernel, stride = case
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.standard_normal((n, c, h, w))).requires_grad_()
    weight = torch.from_numpy(rng.standard_normal((filters, c, kernel, kernel))).requires_grad_()
    out = functional.conv2d(x, weight, stride=stride, padding=kernel // 2)
    dout = torch.from_numpy(rng.standard_normal(out.shape))
    out.backward(dout)
    filter_gradient = to_engine(weight.grad.numpy())
    expected = {"out": out.detach(), "dX": x.grad, "dF": filter_gradient, "alone": filter_gradient}
    inputs = {
        "X": pixel_major(x.detach()),
        "F": to_engine(weight.detach().numpy()),
        "D": pixel_major(dout),
        **{"N": n, "H": h, "W": w, "K": kernel, "stride": stride},
    }
    results = threaded.run(WINDOWS, inputs, dict.fromkeys(expected, "matrix"))
    again = threaded.run(WINDOWS, inputs, dict.fromkeys(expected, "matrix"))
    for name, right in expected.items():
        found = threaded.to_numpy(results[name])
        right = right if isinstance(right, np.ndarray) else pixel_major(right)
        error = relative_error(found, right)
        assert 1e-9 < error <= BOUNDS[threaded.multiply.precision], name
        assert np.array_equal(found, threaded.to_numpy(again[name])), name


def test_one_thread_gives_the_same_to_rounding(native, start, precision):
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((3000, 100)), rng.standard_normal((100, 60))
    inputs, outputs = {"A": a, "B": b}, {"C": "matrix", "left": "matrix"}
    engine = start(precision, 1)
    one, many = engine.run(PRODUCTS, inputs, outputs), native.run(PRODUCTS, inputs, outputs)
    for name in outputs:
        found, expected = engine.to_numpy(one[name]), native.to_numpy(many[name])
        assert relative_error(found, expected) <= 1e-6, name


# With an OpenMP library that the package brings


@pytest.fixture
def bundled(monkeypatch, tmp_path):
    """The system's library in the place of the one that a wheel brings."""
    folder = tmp_path / "a package.libs"
    folder.mkdir()
    ctypes.CDLL("libgomp.so.1")
    lines = Path("/proc/self/maps").read_text().splitlines()
    system = next(line.split(maxsplit=5)[5] for line in lines if "/libgomp.so.1" in line)
    library = folder / "libgomp-f9a9ad78.so.1.0.0"
    shutil.copy(system, library)
    monkeypatch.setattr(multiply, "BUNDLED", folder)
    return library


def test_onednn_and_the_helper_take_their_threads_from_the_openmp_that_the_package_brings(bundled):
    with Engine("single", heap=GIB // 2) as engine:
        assert str(engine.multiply) == "FP32 by oneDNN"
        a = np.arange(12.0).reshape(3, 4)
        found = engine.run("C = A %*% B", {"A": a, "B": a.T}, {"C": "matrix"})
        assert np.array_equal(engine.to_numpy(found["C"]), a @ a.T)
        maps = Path(f"/proc/{engine._owned.process.pid}/maps").read_text().splitlines()
    assert {line.split(maxsplit=5)[5] for line in maps if "libgomp" in line} == {str(bundled)}


def test_an_openmp_library_that_does_not_load_is_named(bundled, monkeypatch):
    bundled.write_bytes(b"not a library")
    assert f"it does not load: {bundled}" in multiply.choose("single", "auto", own_jvm=True).note
    monkeypatch.setattr(multiply, "helper_problem", lambda: None)  # the JVM may miss what Python has
    with pytest.warns(
        NotAsAsked, match=rf"in FP64 by plain Java \(the engine does not load {bundled.name}: "
    ):
        Engine("single", heap=GIB // 2).close()


def test_spark_sends_it_to_executors_with_onednn(bundled, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cluster = Cluster("local-cluster[1,1,1024]", 1)
    for native in (True, False):
        chosen = multiply.Multiply("single", bundled, native)
        assert (bundled.as_uri() in executor_conf(cluster, chosen)["spark.files"].split(",")) == native


# What is chosen


@pytest.fixture
def openblas(monkeypatch):
    monkeypatch.setattr(multiply, "find_openblas", lambda: Path("/usr/lib/libopenblas.so.0"))


def test_the_helper_is_for_single_and_bf16_alone(openblas):
    assert str(multiply.choose("double", "auto", own_jvm=True)) == "FP64 by OpenBLAS"
    assert str(multiply.choose("single", "auto", own_jvm=True)) == "FP32 by oneDNN"
    assert str(multiply.choose("single", "openblas", own_jvm=True)) == "FP32 by OpenBLAS"
    assert str(multiply.choose("double", "none", own_jvm=True)) == "FP64 by plain Java"


@pytest.mark.parametrize("precision", ["single", "bf16"])
@pytest.mark.parametrize("blas_asked", ["auto", "openblas", "none"])
def test_what_cannot_be_had_is_replaced_and_named(openblas, monkeypatch, precision, blas_asked):
    monkeypatch.setattr(multiply, "HELPER_FOLDER", Path("/nowhere"))
    chosen = multiply.choose(precision, blas_asked, own_jvm=True)
    assert not chosen.native
    assert chosen.precision == ("double" if blas_asked == "none" else "single")
    assert bool(chosen.note) == (chosen.precision != precision or blas_asked == "auto")
    if blas_asked == "auto":
        assert chosen.note == "no native helper: it was not compiled; install g++, then sysds-resnet again"


def test_a_processor_without_bf16_multiplies_in_single_precision(monkeypatch):
    monkeypatch.setattr(multiply, "has_bf16", lambda: False)
    chosen = multiply.choose("bf16", "auto", own_jvm=True)
    assert str(chosen) == "FP32 by oneDNN (bf16 needs a CPU with AVX512-BF16)"


def test_a_helper_that_does_not_load_is_named(monkeypatch, tmp_path):
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "broken.so").write_bytes(b"not a library")
    monkeypatch.setattr(multiply, "HELPER_FOLDER", tmp_path)
    assert "it does not load: " in multiply.choose("single", "auto", own_jvm=True).note


def test_a_jvm_of_somebody_else_has_no_helper(openblas):
    chosen = multiply.choose("bf16", "auto", own_jvm=False)
    assert str(chosen) == "FP32 by OpenBLAS (no native helper: it needs a JVM of our own)"
