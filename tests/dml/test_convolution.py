"""Convolutions in DML and their windows against PyTorch in FP64, in every way that they run."""

import pytest
import torch
from dml_layers import CONV, GATHER, random
from dml_runner import assert_close, pixel_major, to_engine
from reference import gathered
from torch.nn import functional

# (N, C, H, W), kernel, stride, padding
WINDOWS = [
    ((2, 3, 9, 7), 7, 2, 3),
    ((1, 1, 2, 3), 7, 2, 3),  # smaller than the window
    ((2, 4, 5, 8), 3, 1, 1),
    ((3, 2, 7, 10), 3, 2, 1),
    ((2, 3, 6, 5), 3, 2, 0),
    ((2, 5, 4, 3), 1, 1, 0),
    ((2, 5, 7, 4), 1, 2, 0),
    ((4, 32, 28, 23), 3, 1, 1),  # large enough for several threads
]


def window_ids(case):
    (n, c, h, w), kernel, stride, padding = case
    return f"{n}x{c}x{h}x{w}-k{kernel}s{stride}p{padding}"


@pytest.mark.parametrize("case", WINDOWS, ids=window_ids)
def test_windows_gather_what_unfold_gathers(dml, case):
    (n, c, h, w), kernel, stride, padding = case
    x = random(n, c, h, w)
    patches, size = dml(
        GATHER
        + CONV
        + """S = gather::windows(N, H, W, K, stride, pad)
        P = conv2d::patches(X, S, K)
        size = matrix(gather::output_size(H, K, stride, pad), rows=1, cols=1)
        size = cbind(size, matrix(gather::output_size(W, K, stride, pad), rows=1, cols=1))
        """,
        "P size",
        X=pixel_major(x),
        N=n,
        H=h,
        W=w,
        K=kernel,
        stride=stride,
        pad=padding,
    )
    unfolded = functional.unfold(x, kernel, padding=padding, stride=stride)  # (N, C*K*K, pixels)
    expected = unfolded.reshape(n, c, kernel * kernel, -1).permute(0, 3, 2, 1)
    assert_close(patches, expected.reshape(-1, kernel * kernel * c), 1e-290)  # exact but for two entries
    output = functional.max_pool2d(torch.ones(1, 1, h + 2 * padding, w + 2 * padding), kernel, stride)
    assert size.tolist() == [list(output.shape[2:])]


@pytest.mark.parametrize(("kernel", "padding"), [(1, 0), (3, 1)])
def test_gather_matrices_of_many_images(quick_dml, kernel, padding):
    n, size = 80, 32  # more rows than the engine gives to one task
    columns = quick_dml(
        GATHER + "S = gather::windows(N, H, H, K, 2, pad)\ncolumns = S %*% seq(1, ncol(S))\n",
        "columns",
        N=n,
        H=size,
        K=kernel,
        pad=padding,
    )
    assert_close(columns, gathered((n, size, size), kernel, 2, padding), 1e-290)


def convolution(shape, kernel, stride, padding):
    """PyTorch's inputs and filters with their gradients, its outputs, and the gradient wrt those."""
    x, weight = random(*shape).requires_grad_(), random(6, shape[1], kernel, kernel, seed=1).requires_grad_()
    out = functional.conv2d(x, weight, stride=stride, padding=padding)
    dout = random(*out.shape, seed=2)
    out.backward(dout)
    return x, weight, out, dout


@pytest.mark.parametrize("case", WINDOWS, ids=window_ids)
def test_convolution_and_its_gradients(dml, case):
    (n, _, h, w), kernel, stride, padding = case
    x, weight, expected, dout = convolution(*case)
    out, d_weight, d_x = dml(
        GATHER
        + CONV
        + """S = gather::windows(N, H, W, K, stride, pad)
        P = conv2d::patches(X, S, K)
        out = conv2d::forward(P, weight)
        d_weight = conv2d::backward_filter(dout, P)
        dP = conv2d::backward_patches(dout, weight)
        d_x = conv2d::backward_gather(dP, t(S), K)
        """,
        "out d_weight d_x",
        X=pixel_major(x.detach()),
        weight=to_engine(weight.detach().numpy()),
        dout=pixel_major(dout),
        N=n,
        H=h,
        W=w,
        K=kernel,
        stride=stride,
        pad=padding,
    )
    assert_close(out, pixel_major(expected.detach()))
    assert_close(d_weight, to_engine(weight.grad.numpy()))
    assert_close(d_x, pixel_major(x.grad))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("shape", [(1, 2, 1, 1), (3, 5, 3, 4), (2, 64, 16, 20)])
def test_convolution_of_windows_and_its_gradients(dml, kernel, shape, stride):
    n, _, h, w = shape
    x, weight, expected, dout = convolution(shape, kernel, stride, kernel // 2)
    out, d_weight, d_x, alone = dml(
        GATHER
        + CONV
        + """S = gather::windows(N, H, W, K, stride, pad)
        out = conv2d::windows_forward(X, weight, S, H, W, K, stride)
        [d_x, d_weight] = conv2d::windows_backward(dout, X, weight, S, t(S), H, W, K, stride)
        alone = conv2d::windows_backward_filter(dout, X, S, H, W, K, stride)
        """,
        "out d_weight d_x alone",
        X=pixel_major(x.detach()),
        weight=to_engine(weight.detach().numpy()),
        dout=pixel_major(dout),
        N=n,
        H=h,
        W=w,
        K=kernel,
        stride=stride,
        pad=kernel // 2,
    )
    assert_close(out, pixel_major(expected.detach()))
    assert_close(d_weight, to_engine(weight.grad.numpy()))
    assert_close(alone, to_engine(weight.grad.numpy()))
    assert_close(d_x, pixel_major(x.grad))


@pytest.mark.parametrize("shape", [(5, 3, 4), (1000, 1, 7), (3000, 40, 24)])
def test_products_with_transposes(dml, shape):
    m, k, f = shape
    a, b, c = random(m, k).numpy(), random(m, f, seed=1).numpy(), random(f, k, seed=2).numpy()
    left, right = dml(
        """source("dml/layers/pixels/product.dml") as product
        left = product::left_transposed(A, B)
        right = product::right_transposed(A, C)
        """,
        "left right",
        A=a,
        B=b,
        C=c,
    )
    assert_close(left, a.T @ b)
    assert_close(right, a @ c.T)
