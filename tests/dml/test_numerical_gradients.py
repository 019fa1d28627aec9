"""Every backward function in DML against central differences of its forward function, all in DML."""

import numpy as np
import pytest
from dml_runner import Dml, assert_close

STEP = 1e-5  # truncation and rounding errors are both about 1e-10 then


def differences(name, forward):
    """DML that computes the gradient of sum(out*dout) wrt one variable."""
    return f"""
    numeric_{name} = matrix(0, rows=nrow({name}), cols=ncol({name}))
    for (i in 1:nrow({name})) {{
      for (j in 1:ncol({name})) {{
        middle = as.scalar({name}[i,j])
        {name}[i,j] = middle + {STEP}
        {forward}
        above = sum(out*dout)
        {name}[i,j] = middle - {STEP}
        {forward}
        below = sum(out*dout)
        {name}[i,j] = middle
        numeric_{name}[i,j] = (above - below) / {2 * STEP}
      }}
    }}
    """


@pytest.fixture(params=["sizes_unknown", "sizes_known", "fused"])
def check(request, engine):
    """Compare `d_<name>`, as the backward DML sets it, with differences for each of the names."""

    def run(sources, setup, forward, backward, names, **inputs):
        imports = "".join(f'source("dml/layers/{s}.dml") as {alias}\n' for s, alias in sources.items())
        program = f"{imports}{setup}\n{forward}\n{backward}\n"
        program += "".join(differences(name, forward) for name in names)
        outputs = " ".join(f"d_{name} numeric_{name}" for name in names)
        results = Dml(engine, request.param)(program, outputs, **inputs)
        for name, analytic, numeric in zip(names, results[::2], results[1::2], strict=True):
            assert np.abs(numeric).max() > 0.01, f"d_{name} tells nothing"
            assert_close(analytic, numeric, 1e-8)

    return run


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 1, 1), (3, 2, 1), (7, 2, 3), (1, 2, 0)])
def test_convolution(check, kernel, stride, padding):
    n, c, f, h, w = 2, 2, 3, 4, 3
    size = [(s + 2 * padding - kernel) // stride + 1 for s in (h, w)]
    check(
        {"pixels/gather": "gather", "pixels/conv2d": "conv2d"},
        f"S = gather::windows({n}, {h}, {w}, {kernel}, {stride}, {padding})",
        f"P = conv2d::patches(X, S, {kernel})\nout = conv2d::forward(P, weight)",
        f"""d_weight = conv2d::backward_filter(dout, P)
        dP = conv2d::backward_patches(dout, weight)
        d_X = conv2d::backward_gather(dP, t(S), {kernel})""",
        ["X", "weight"],
        X=normal(n * h * w, c),
        weight=normal(kernel * kernel * c, f, seed=1),
        dout=normal(n * size[0] * size[1], f, seed=2),
    )


@pytest.mark.parametrize("stride", [1, 2])
def test_convolution_of_windows(check, stride):
    n, c, f, h, w = 2, 2, 3, 4, 3
    check(
        {"pixels/gather": "gather", "pixels/conv2d": "conv2d"},
        f"S = gather::windows({n}, {h}, {w}, 3, {stride}, 1)",
        f"out = conv2d::windows_forward(X, weight, S, {h}, {w}, 3, {stride})",
        f"[d_X, d_weight] = conv2d::windows_backward(dout, X, weight, S, t(S), {h}, {w}, 3, {stride})",
        ["X", "weight"],
        X=normal(n * h * w, c),
        weight=normal(9 * c, f, seed=1),
        dout=normal(n * 4 if stride == 2 else n * h * w, f, seed=2),
    )


def test_batch_norm_and_relu(check):
    """The statistics depend on the input too."""
    x, gamma, beta = normal(12, 3), normal(1, 3, seed=1), normal(1, 3, seed=2)
    normalized = (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + 0.001)
    assert np.abs(normalized * gamma + beta).min() > 100 * STEP, "too near the corner of the ReLU"
    check(
        {"pixels/batch_norm2d": "bn", "pixels/pixelwise": "pixelwise"},
        "",
        """[mean, var] = bn::statistics(X)
        [scale, shift] = bn::scale_shift(gamma, beta, mean, var, 0.001)
        out = pixelwise::norm_relu(X, scale, shift)""",
        """d = pixelwise::relu_backward(dout, out)
        [d_gamma, d_beta] = bn::backward_parameters(pixelwise::dots(d, X), mean, var, 0.001)
        [a, b, c] = bn::backward_coefficients(d_gamma, d_beta, gamma, mean, var, 0.001, nrow(X))
        d_X = pixelwise::norm_backward(d, X, a, b, c)""",
        ["X", "gamma", "beta"],
        X=x,
        gamma=gamma,
        beta=beta,
        dout=normal(12, 3, seed=3),
    )


def test_expansion_and_its_norm(check):
    """The layer's statistics and gradients come from second moments of its input."""
    check(
        {"pixels/conv2d": "conv2d", "pixels/batch_norm2d": "bn", "pixels/expansion": "expansion"},
        "",
        """moments = expansion::input_moments(X)
        [mean, var] = expansion::statistics(moments, weight, nrow(X))
        [scale, shift] = bn::scale_shift(gamma, beta, mean, var, 0.001)
        out = conv2d::forward(X, weight*scale) + shift""",
        "[d_X, d_weight, d_gamma, d_beta] = expansion::backward(dout, X, moments, weight, gamma, mean, var, "
        "0.001)",
        ["X", "weight", "gamma", "beta"],
        X=normal(12, 2),
        weight=normal(2, 5, seed=1),
        gamma=normal(1, 5, seed=2),
        beta=normal(1, 5, seed=3),
        dout=normal(12, 5, seed=4),
    )


def test_end_of_a_block(check):
    x, y = normal(8, 3), normal(8, 3, seed=1)
    assert np.abs(x + y).min() > 10 * STEP, "too near the corner of the ReLU"
    check(
        {"pixels/pixelwise": "pixelwise"},
        "ones = matrix(1, rows=1, cols=3)",
        "out = pixelwise::norm_add_relu(X, ones, ones - 1, Y) + X",
        "d_Y = pixelwise::relu_backward(dout, out - X)\nd_X = d_Y + dout",
        ["X", "Y"],
        X=x,
        Y=y,
        dout=normal(8, 3, seed=2),
    )


def test_max_pool(check):
    n, c, h, w = 2, 2, 5, 4
    x = np.random.default_rng(0).permutation(n * h * w * c) * 0.1 + 0.1  # no two are near each other
    check(
        {"pixels/gather": "gather", "pixels/max_pool2d": "pool"},
        f"S = gather::windows({n}, {h}, {w}, 3, 2, 1)",
        f"out = pool::forward(X, S, {h}, {w}, 3, 2)",
        f"d_X = pool::backward(dout, out, X, S, t(S), {h}, {w}, 3, 2)",
        ["X"],
        X=x.reshape(n * h * w, c),
        dout=normal(n * 3 * 2, c),
    )


def test_global_average_pool(check):
    check(
        {"pixels/gather": "gather"},
        "A = gather::image_mean(2, 6)",
        "out = A %*% X",
        "d_X = t(A) %*% dout",
        ["X"],
        X=normal(12, 3),
        dout=normal(2, 3, seed=1),
    )


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_cross_entropy(check, label_smoothing):
    check(
        {"cross_entropy": "loss"},
        f"Y = loss::targets(y, 5, {label_smoothing})",
        "log_p = loss::log_softmax(logits)\nout = loss::forward(log_p, Y)",
        "d_logits = loss::backward(log_p, Y)*as.scalar(dout)",
        ["logits"],
        logits=normal(4, 5),
        y=np.array([[1.0], [5.0], [3.0], [3.0]]),
        dout=np.array([[1.0]]),
    )
