"""The layers in DML besides convolutions, against PyTorch in FP64, in every way that they run."""

import numpy as np
import pytest
import torch
from dml_layers import CONV, GATHER, NORM, PIXELWISE, POOL, random
from dml_runner import assert_close, pixel_major, to_engine
from torch.nn import functional


@pytest.mark.parametrize("shape", [(1, 2, 1, 1), (3, 5, 3, 4), (8, 64, 16, 20)])
def test_image_mean_averages_each_image(dml, shape):
    x = random(*shape)
    pooled = dml(
        GATHER + "A = gather::image_mean(N, HW)\nY = A %*% X\n",
        "Y",
        X=pixel_major(x),
        N=shape[0],
        HW=shape[2] * shape[3],
    )
    assert_close(pooled, x.mean(dim=(2, 3)))


@pytest.mark.parametrize("shape", [(2, 3, 1, 1), (3, 5, 7, 4), (8, 64, 45, 46)])
@pytest.mark.parametrize("eps", [1e-5, 1e-3])
def test_batch_norm_in_training(dml, shape, eps):
    c = shape[1]
    x = (random(*shape) * random(1, c, 1, 1, seed=5) + random(1, c, 1, 1, seed=6)).requires_grad_()
    gamma, beta = random(c, seed=1).requires_grad_(), random(c, seed=2).requires_grad_()
    expected = functional.batch_norm(x, None, None, gamma, beta, training=True, eps=eps).relu()
    dout = random(*shape, seed=3)
    expected.backward(dout)
    mean, var, out, d_gamma, d_beta, d_x, *at_once = dml(
        NORM
        + PIXELWISE
        + """[mean, var] = bn::statistics(X)
        [scale, shift] = bn::scale_shift(gamma, beta, mean, var, eps)
        out = pixelwise::norm_relu(X, scale, shift)
        d = pixelwise::relu_backward(dout, out)
        [d_gamma, d_beta] = bn::backward_parameters(pixelwise::dots(d, X), mean, var, eps)
        [a, b, c] = bn::backward_coefficients(d_gamma, d_beta, gamma, mean, var, eps, nrow(X))
        d_x = pixelwise::norm_backward(d, X, a, b, c)
        sums = pixelwise::relu_dots(dout, out, X)
        [d_gamma_at_once, d_beta_at_once] = bn::backward_parameters(sums, mean, var, eps)
        d_x_at_once = pixelwise::norm_relu_backward(dout, out, X, a, b, c)
        """,
        "mean var out d_gamma d_beta d_x d_gamma_at_once d_beta_at_once d_x_at_once",
        X=pixel_major(x.detach()),
        gamma=to_engine(gamma.detach().numpy()),
        beta=to_engine(beta.detach().numpy()),
        dout=pixel_major(dout),
        eps=eps,
    )
    assert_close(mean, x.detach().mean(dim=(0, 2, 3))[None])
    assert_close(var, x.detach().var(dim=(0, 2, 3), correction=0)[None])
    assert_close(out, pixel_major(expected.detach()), 1e-11)
    for of_gamma, of_beta, of_x in ((d_gamma, d_beta, d_x), at_once):
        assert_close(of_gamma, gamma.grad[None], 1e-11)
        assert_close(of_beta, beta.grad[None], 1e-11)
        assert_close(of_x, pixel_major(x.grad), 1e-10)


@pytest.mark.parametrize("shape", [(1, 2, 1, 1), (3, 5, 7, 4), (8, 64, 45, 46)])
def test_batch_norm_in_evaluation(dml, shape):
    x, c = random(*shape), shape[1]
    gamma, beta, mean, var = (random(c, seed=seed) for seed in (1, 2, 3, 4))
    var = var**2
    expected = functional.batch_norm(x, mean, var, gamma, beta, training=False, eps=1e-5)
    out = dml(
        NORM
        + PIXELWISE
        + """[scale, shift] = bn::scale_shift(gamma, beta, mean, var, eps)
        out = pixelwise::norm_relu(X, scale, shift)
        """,
        "out",
        X=pixel_major(x),
        **{
            name: to_engine(value.numpy())
            for name, value in dict(gamma=gamma, beta=beta, mean=mean, var=var).items()
        },
        eps=1e-5,
    )
    assert_close(out, pixel_major(expected.relu()))


@pytest.mark.parametrize("shape", [(2, 3, 1, 1), (3, 5, 7, 4), (8, 16, 45, 46)])
def test_expansion_is_a_convolution_and_a_norm(dml, shape):
    """The same numbers from second moments of the input as from the outputs themselves."""
    n, c, f, eps = len(shape), shape[1], 2 * shape[1] + 1, 1e-3
    x, weight = random(*shape).relu().requires_grad_(), random(f, c, 1, 1, seed=1).requires_grad_()
    gamma, beta = random(f, seed=2).requires_grad_(), random(f, seed=3).requires_grad_()
    z = functional.conv2d(x, weight)
    expected = functional.batch_norm(z, None, None, gamma, beta, training=True, eps=eps)
    dout = random(*expected.shape, seed=n)
    expected.backward(dout)
    mean, var, out, d_x, d_weight, d_gamma, d_beta = dml(
        CONV
        + NORM
        + """source("dml/layers/pixels/expansion.dml") as expansion
        moments = expansion::input_moments(X)
        [mean, var] = expansion::statistics(moments, weight, nrow(X))
        [scale, shift] = bn::scale_shift(gamma, beta, mean, var, eps)
        out = conv2d::forward(X, weight*scale) + shift
        [d_x, d_weight, d_gamma, d_beta] = expansion::backward(dout, X, moments, weight, gamma, mean, var,
                                                               eps)
        """,
        "mean var out d_x d_weight d_gamma d_beta",
        X=pixel_major(x.detach()),
        weight=to_engine(weight.detach().numpy()),
        gamma=to_engine(gamma.detach().numpy()),
        beta=to_engine(beta.detach().numpy()),
        dout=pixel_major(dout),
        eps=eps,
    )
    assert_close(mean, z.detach().mean(dim=(0, 2, 3))[None])
    assert_close(var, z.detach().var(dim=(0, 2, 3), correction=0)[None])
    assert_close(out, pixel_major(expected.detach()), 1e-11)
    assert_close(d_gamma, gamma.grad[None], 1e-10)
    assert_close(d_beta, beta.grad[None], 1e-11)
    assert_close(d_weight, to_engine(weight.grad.numpy()), 1e-10)
    assert_close(d_x, pixel_major(x.grad), 1e-10)


def test_variance_is_never_negative(dml):
    """A constant channel has variance 0, up to the rounding of a difference of squares."""
    x = np.full((1000, 3), [0.1, 1 / 3, -1e3])
    mean, var = dml(NORM + "[mean, var] = bn::statistics(X)\n", "mean var", X=x)
    assert_close(mean, x[:1])
    assert (var >= 0).all() and (var <= 1e-13 * x[:1] ** 2).all()


@pytest.mark.parametrize("shape", [(3, 2), (70_000, 16)])
def test_ends_of_blocks(dml, shape):
    x, y, other = random(*shape).requires_grad_(), random(*shape, seed=1), random(*shape, seed=2)
    row = {name: random(1, shape[1], seed=k) for k, name in enumerate(["scale", "shift"])}
    with torch.no_grad():
        x[0] = -(y[0] + row["shift"]) / row["scale"]  # sums near zero
    dout = random(*shape, seed=3)
    expected = (x * row["scale"] + row["shift"] + y).relu()
    expected_shift = (x + row["shift"] + y).relu()
    out, out_shift, d_x = dml(
        PIXELWISE
        + """out = pixelwise::norm_add_relu(X, scale, shift, Y)
        out_shift = pixelwise::shift_add_relu(X, shift, Y)
        d_x = pixelwise::relu_backward_add(dout, other, out)
        """,
        "out out_shift d_x",
        X=x.detach().numpy(),
        Y=y.numpy(),
        dout=dout.numpy(),
        other=other.numpy(),
        **{name: value.numpy() for name, value in row.items()},
    )
    assert_close(out, expected.detach())
    assert_close(out_shift, expected_shift.detach())
    assert_close(d_x, np.where(out > 1e-300, dout + other, 0))
    assert (out > 0).all() and (out_shift > 0).all() and (d_x != 0).all(), "zeros turn a matrix sparse"


def test_relu_passes_no_gradient_where_its_input_is_zero(dml):
    """As PyTorch: the gradient at 0 is 0."""
    x, one, zero = np.zeros((4, 2)), np.ones((1, 2)), np.zeros((1, 2))
    x[1] = 1e-200
    d_x = dml(
        PIXELWISE
        + """out = pixelwise::norm_relu(X, one, zero)
        d_x = pixelwise::relu_backward(dout, out)
        """,
        "d_x",
        X=x,
        one=one,
        zero=zero,
        dout=np.full((4, 2), 3.0),
    )
    assert np.abs(d_x - np.where(x > 0, 3.0, 0.0)).max() < 1e-290


MAX_POOL = (
    GATHER
    + POOL
    + """S = gather::windows(N, H, W, K, stride, as.integer((K - 1)/2))
    out = pool::forward(X, S, H, W, K, stride)
    d_x = pool::backward(dout, out, X, S, t(S), H, W, K, stride)
    """
)


@pytest.mark.parametrize(
    ("shape", "kernel", "stride"),
    [
        ((2, 3, 9, 7), 3, 2),
        ((3, 2, 5, 6), 3, 2),
        ((1, 1, 1, 1), 3, 2),
        ((2, 64, 41, 32), 3, 2),  # large enough for several threads
        ((3, 12, 5, 6), 5, 2),  # more channels than a multiple of the processor's vectors
        ((2, 3, 9, 7), 3, 1),
    ],
)
@pytest.mark.parametrize("ties", [False, True])
def test_max_pool_and_its_gradient(dml, shape, kernel, stride, ties):
    """With ties the first position of a window receives the gradient, as in PyTorch."""
    x = random(*shape).abs() + 0.1
    x = ((2 * x).ceil() if ties else x).requires_grad_()
    expected = functional.max_pool2d(x, kernel, stride, kernel // 2)
    dout = random(*expected.shape, seed=1)
    expected.backward(dout)
    out, d_x = dml(
        MAX_POOL,
        "out d_x",
        X=pixel_major(x.detach()),
        dout=pixel_major(dout),
        N=shape[0],
        H=shape[2],
        W=shape[3],
        K=kernel,
        stride=stride,
    )
    assert np.array_equal(out, pixel_major(expected.detach()))
    assert_close(d_x, pixel_major(x.grad))


@pytest.mark.parametrize("bias", [0.0, -1.5], ids=["half_zero", "mostly_zero"])
def test_max_pool_after_relu(dml, bias):
    """Windows of zeros alone do not matter: the ReLU before the pool lets no gradient through them."""
    shape = (2, 8, 12, 13)
    before = (random(*shape) + bias).requires_grad_()
    expected = functional.max_pool2d(before.relu(), 3, 2, 1)
    dout = random(*expected.shape, seed=1)
    expected.backward(dout)
    out, d_before = dml(
        PIXELWISE + MAX_POOL + "d_before = pixelwise::relu_backward(d_x, X)\n",
        "out d_before",
        X=pixel_major(before.detach().relu()),
        dout=pixel_major(dout),
        N=shape[0],
        H=shape[2],
        W=shape[3],
        K=3,
        stride=2,
    )
    assert np.array_equal(out, pixel_major(expected.detach()))
    assert_close(d_before, pixel_major(before.grad))


def test_max_pool_of_nothing_but_zero_gradients(dml):
    x = pixel_major(random(2, 3, 8, 8).abs())
    d_x = dml(MAX_POOL, "d_x", X=x, dout=np.zeros((32, 3)), N=2, H=8, W=8, K=3, stride=2)
    assert np.abs(d_x).max() < 1e-298
