"""LARS and SGD against formulas in NumPy and against other implementations."""

import itertools

import numpy as np
import pytest
import torch
from dml_runner import assert_close
from optim_formulas import momentum_step, trust_ratio

SOURCES = 'source("dml/optim/lars.dml") as lars\nsource("dml/optim/sgd.dml") as sgd\n'
SOURCES += 'source("dml/optim/tensors.dml") as tensors\n'
RATES = np.array([[0.5], [2.0], [0.1], [1.0]])  # a warm-up and a decay, so that lr's place matters
CASES = ["usual", "weight is zero", "gradients are zero", "both are zero"]
FLAGS = list(itertools.product([False, True], repeat=2))
FLAG_IDS = [f"nesterov_{n}-lr_{'in' if i else 'out'}side" for n, i in FLAGS]


def lars(w, gradients, momentum, weight_decay, trust_coeff, eps, trust_clip, nesterov, lr_in_momentum):
    v = np.zeros_like(w)
    for g, lr in zip(gradients, RATES[:, 0], strict=True):
        ratio = trust_ratio(w, g, weight_decay, trust_coeff, eps)
        if trust_clip:
            ratio = min(ratio / lr, 1.0)
        w, v = momentum_step(w, g, v, lr, momentum, weight_decay, ratio, nesterov, lr_in_momentum)
    return w, v


def problem(case, shape=(6, 5)):
    """A tensor and a gradient for each learning rate."""
    rng = np.random.default_rng(0)
    w, gradients = rng.standard_normal(shape), rng.standard_normal((len(RATES), *shape))
    if case == "weight is zero":
        w[:] = 0.0
    if case == "gradients are zero":
        gradients[1:3] = 0.0
    if case == "both are zero":
        w[:], gradients[:2] = 0.0, 0.0
    return w, gradients


UPDATE = """
[of_velocity, of_weights] = sgd::factors(lrs, momentum, weight_decays, ratios, 1.0, lr_in_momentum)
[Ws, Vs] = sgd::update(Ws, list(dW), Vs, one, of_velocity, of_weights, nesterov)
"""
SGD = "ratios = matrix(ratio, rows=1, cols=1)" + UPDATE
LARS = (
    """
w_norms = tensors::norms(Ws, one)
g_norms = tensors::norms(list(dW), one)
ratios = lars::trust_ratios(w_norms, g_norms, weight_decays, trust_coeff, eps)
if (trust_clip) {
  ratios = lars::clip(ratios, lrs)
}
"""
    + UPDATE
)


def run(dml, update, w, gradients, **settings):
    """Apply an update in DML once for each learning rate; the gradients lie below each other."""
    return dml(
        SOURCES
        + f"""Ws = list(W)
        Vs = list(matrix(0, rows=nrow(W), cols=ncol(W)))
        one = matrix(1, rows=1, cols=1)
        weight_decays = matrix(weight_decay, rows=1, cols=1)
        n = nrow(W)
        for (i in 1:nrow(rates)) {{
          dW = gradients[((i-1)*n + 1):(i*n),]
          lrs = rates[i,1]
          {update}
        }}
        new_W = as.matrix(Ws[1])
        V = as.matrix(Vs[1])
        """,
        "new_W V",
        W=w,
        gradients=np.concatenate(gradients),
        rates=RATES,
        **settings,
    )


@pytest.mark.parametrize(
    ("weight_decay", "eps", "trust_clip", "nesterov", "lr_in_momentum"),
    [
        (0.0, 0.0, False, False, True),
        (1e-2, 0.0, False, False, True),  # the paper, MLPerf
        (1e-2, 0.0, False, True, True),
        (1e-2, 0.5, False, False, False),  # timm
        (1e-2, 0.5, True, False, False),
        (0.0, 0.0, True, True, False),
        (1e-2, 0.0, True, True, True),
    ],
)
def test_lars_follows_its_formula(dml, weight_decay, eps, trust_clip, nesterov, lr_in_momentum):
    settings = dict(
        momentum=0.9,
        weight_decay=weight_decay,
        trust_coeff=0.7,  # so that the clip acts on some steps and not on others
        eps=eps,
        trust_clip=trust_clip,
        nesterov=nesterov,
        lr_in_momentum=lr_in_momentum,
    )
    for case in CASES:
        w, gradients = problem(case)
        new_w, v = run(dml, LARS, w, gradients, **settings)
        expected_w, expected_v = lars(w, gradients, **settings)
        assert_close(new_w, expected_w)
        assert_close(v, expected_v)


def test_trust_ratios_follow_their_formula(dml):
    problems = [problem(case) for case in CASES]
    tensors = {f"w{i}": w for i, (w, _) in enumerate(problems)}
    tensors |= {f"g{i}": gradients[1] for i, (_, gradients) in enumerate(problems)}
    decays = np.array([[1e-4], [0.0], [1e-4], [0.0]])
    for eps in (0.0, 1e-2):
        ratios, w_norms = dml(
            SOURCES
            + """all = matrix(1, rows=4, cols=1)
            three = matrix("1 0 1 1", rows=4, cols=1)
            w_norms = tensors::norms(list(w0, w1, w2, w3), all)
            g_norms = tensors::norms(list(g0, g1, g2, g3), all)
            ratios = lars::trust_ratios(w_norms, g_norms, weight_decays, trust_coeff, eps)
            w_norms = tensors::norms(list(w0, w0, w0, w0), three)
            """,
            "ratios w_norms",
            **tensors,
            weight_decays=decays,
            trust_coeff=0.001,
            eps=eps,
        )
        for ratio, (w, gradients), decay in zip(ratios[:, 0], problems, decays[:, 0], strict=True):
            assert_close(ratio, trust_ratio(w, gradients[1], decay, 0.001, eps))
        assert_close(w_norms[:, 0], np.linalg.norm(problems[0][0]) * np.array([1, 0, 1, 1]))


@pytest.mark.parametrize(("nesterov", "lr_in_momentum"), FLAGS, ids=FLAG_IDS)
@pytest.mark.parametrize(
    ("weight_decay", "shape"),
    [(0.0, (1, 4)), (1e-2, (700, 400))],  # the large one is shared among threads
)
def test_sgd_follows_its_formula(dml, nesterov, lr_in_momentum, weight_decay, shape):
    w, gradients = problem("usual", shape)
    settings = dict(
        momentum=0.9, weight_decay=weight_decay, ratio=0.3, nesterov=nesterov, lr_in_momentum=lr_in_momentum
    )
    new_w, v = run(dml, SGD, w, gradients, **settings)
    expected_v = np.zeros_like(w)
    for g, lr in zip(gradients, RATES[:, 0], strict=True):
        w, expected_v = momentum_step(w, g, expected_v, lr, **settings)
    assert_close(new_w, w)
    assert_close(v, expected_v)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("weight_decay", [0.0, 1e-2])
def test_sgd_is_pytorchs(dml, nesterov, weight_decay):
    w, gradients = problem("usual")
    settings = dict(momentum=0.9, weight_decay=weight_decay, nesterov=nesterov)
    new_w, _ = run(dml, SGD, w, gradients, **settings, ratio=1.0, lr_in_momentum=False)
    parameter = torch.nn.Parameter(torch.from_numpy(w))
    optimizer = torch.optim.SGD([parameter], **settings)
    for g, lr in zip(gradients, RATES[:, 0], strict=True):
        optimizer.param_groups[0]["lr"] = lr
        parameter.grad = torch.from_numpy(g)
        optimizer.step()
    assert_close(new_w, parameter.detach().numpy())


@pytest.mark.long
@pytest.mark.parametrize(
    ("case", "weight_decay"),
    [(case, 0.0) for case in CASES] + [(case, 1e-2) for case in CASES if case != "gradients are zero"],
)
@pytest.mark.parametrize("nesterov", [False, True])
def test_lars_is_optaxs(dml, case, nesterov, weight_decay):
    """optax takes the norm |g + decay*w| where the paper and MLPerf have |g| + decay*|w|.

    The two are equal where gradient and weight point the same way, so here they do if there is decay. For
    the same reason the ratio with decay and without gradient is not 1 there.
    """
    import jax
    import optax

    w, gradients = problem(case)
    settings = dict(momentum=0.9, weight_decay=weight_decay, nesterov=nesterov)
    with jax.enable_x64():
        rates = jax.numpy.asarray(RATES[:, 0])
        optimizer = optax.lars(lambda step: rates[step], trust_coefficient=0.001, eps=0.0, **settings)
        params = jax.numpy.asarray(w)
        state = optimizer.init(params)
        for i, g in enumerate(gradients):
            if weight_decay > 0 and np.any(g) and np.any(params):
                g = gradients[i] = np.asarray(params) * np.linalg.norm(g)
            updates, state = optimizer.update(jax.numpy.asarray(g), state, params)
            params = optax.apply_updates(params, updates)
        expected = np.asarray(params)
    assert expected.dtype == np.float64
    form = dict(trust_coeff=0.001, eps=0.0, trust_clip=False, lr_in_momentum=True)
    new_w, _ = run(dml, LARS, w, gradients, **settings, **form)
    assert_close(new_w, expected)


def test_gradients_are_added_tensor_by_tensor(dml):
    rng = np.random.default_rng(0)
    a, b, c, d = (rng.standard_normal(shape) for shape in ((2, 3), (1, 4), (2, 3), (1, 4)))
    program = "s = tensors::add(list(A, B), list(C, D))\nfirst = as.matrix(s[1])\nsecond = as.matrix(s[2])\n"
    first, second = dml(SOURCES + program, "first second", A=a, B=b, C=c, D=d)
    assert np.array_equal(first, a + c)
    assert np.array_equal(second, b + d)
