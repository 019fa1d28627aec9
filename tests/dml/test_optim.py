"""LARS, SGD and their use by role, against formulas in NumPy and against other implementations."""

import itertools

import numpy as np
import pytest
import torch
from dml_runner import assert_close

from sysds_resnet.errors import UserError

SOURCES = 'source("dml/optim/lars.dml") as lars\nsource("dml/optim/sgd.dml") as sgd\n'
SOURCES += 'source("dml/optim/tensors.dml") as tensors\n'
OPTIM = 'source("dml/optim/optimizer.dml") as optim\n'
RATES = np.array([[0.5], [2.0], [0.1], [1.0]])  # a warm-up and a decay, so that lr's place matters
CASES = ["usual", "weight is zero", "gradients are zero", "both are zero"]
FLAGS = list(itertools.product([False, True], repeat=2))
FLAG_IDS = [f"nesterov_{n}-lr_{'in' if i else 'out'}side" for n, i in FLAGS]


def trust_ratio(w, g, weight_decay, trust_coeff, eps):
    """Equation 6 of You et al. 2017, with MLPerf's epsilon and its ratio of 1 for zero norms."""
    w_norm, g_norm = np.sqrt(np.square(w).sum()), np.sqrt(np.square(g).sum())
    if w_norm == 0 or g_norm == 0:
        return 1.0
    return trust_coeff * w_norm / (g_norm + weight_decay * w_norm + eps)


def momentum_step(w, g, v, lr, momentum, weight_decay, ratio, nesterov, lr_in_momentum):
    """Algorithm 1 of You et al. 2017 with the rate inside; as torch.optim.SGD with it outside."""
    summand = ratio * (g + weight_decay * w)
    if lr_in_momentum:
        summand = lr * summand
    v = momentum * v + summand
    move = momentum * v + summand if nesterov else v
    return w - (move if lr_in_momentum else lr * move), v


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


@pytest.mark.parametrize("name", ["lars", "sgd", "nesterov"])
def test_each_role_is_updated_in_its_own_way(dml, name):
    """LARS and decay for filters and the final weight alone; statistics move towards the batch's."""
    rng = np.random.default_rng(0)
    tensors = [rng.standard_normal((1 if role not in (1, 6) else 4, 3)) for role in range(1, 8)]
    grads = [rng.standard_normal(tensor.shape) for tensor in tensors]
    velocities = [rng.standard_normal(tensor.shape) for tensor in tensors]
    triples = {f"{kind}{i}": a for kind, part in zip("wgv", (tensors, grads, velocities), strict=True)
               for i, a in enumerate(part)}  # fmt: skip
    lists = {kind: ", ".join(f"{kind}{i}" for i in range(7)) for kind in "wgv"}
    results = dml(
        OPTIM
        + f"""registry = list(tensors=cbind(seq(1, 7), matrix(0, rows=7, cols=1)))
        opt = optim::settings(name=name, momentum=0.9, weight_decay=0.01, trust_coeff=0.001, eps=0.0,
                             trust_clip=FALSE, nesterov=FALSE, lr_in_momentum=TRUE)
        model = list({lists["w"]})
        grads = list({lists["g"]})
        velocities = list({lists["v"]})
        [model, velocities, grad_norm] = optim::update(model, grads, velocities, registry, opt, lr)
        """
        + "".join(
            f"w{i} = as.matrix(model[{i + 1}])\nv{i} = as.matrix(velocities[{i + 1}])\n" for i in range(7)
        ),
        " ".join(f"w{i} v{i}" for i in range(7)),
        **triples,
        name=name,
        lr=2.0,
    )
    for i, (w, g, v) in enumerate(zip(tensors, grads, velocities, strict=True)):
        role = i + 1
        if role in (4, 5):
            expected = 0.9 * w + 0.1 * g, v
        else:
            decay = 0.01 if role in (1, 6) else 0.0
            ratio = trust_ratio(w, g, decay, 0.001, 0.0) if name == "lars" and role in (1, 6) else 1.0
            expected = momentum_step(w, g, v, 2.0, 0.9, decay, ratio, name == "nesterov", name == "lars")
        assert_close(results[2 * i], expected[0])
        assert_close(results[2 * i + 1], expected[1])


@pytest.mark.parametrize(
    ("name", "nesterov", "inside", "expected"),
    [
        ("lars", False, True, (1, 0, 1)),
        ("lars", True, False, (1, 1, 0)),
        ("sgd", False, True, (0, 0, 0)),  # the rate of SGD is outside, as PyTorch's
        ("nesterov", False, True, (0, 1, 0)),
    ],
)
def test_optimizer_by_name(quick_dml, name, nesterov, inside, expected):
    settings = quick_dml(
        OPTIM
        + """opt = optim::settings(name=name, momentum=0.9, weight_decay=0.01, trust_coeff=0.001, eps=0.0,
                             trust_clip=FALSE, nesterov=nesterov, lr_in_momentum=inside)
        out = matrix(0, rows=1, cols=3)
        out[1,1] = as.integer(as.scalar(opt["lars"]))
        out[1,2] = as.integer(as.scalar(opt["nesterov"]))
        out[1,3] = as.integer(as.scalar(opt["lr_in_momentum"]))
        """,
        "out",
        name=name,
        nesterov=nesterov,
        inside=inside,
    )
    assert tuple(settings[0]) == expected


def test_unknown_optimizer_is_refused(quick_dml):
    program = (
        OPTIM
        + """opt = optim::settings(name="adam", momentum=0.9, weight_decay=0.0, trust_coeff=0.001, eps=0.0,
                             trust_clip=FALSE, nesterov=FALSE, lr_in_momentum=TRUE)
        n = length(opt)
        """
    )
    with pytest.raises(UserError, match="optimizer: found adam, expected lars, sgd or nesterov"):
        quick_dml(program, "n:int")


def test_settings_of_an_update_are_fp64_in_single_precision(engine_single):
    program = (
        OPTIM
        + """registry = list(tensors=cbind(seq(1, 7), matrix(0, rows=7, cols=1)))
        opt = optim::settings(name="sgd", momentum=0.9, weight_decay=decay, trust_coeff=0.001, eps=0.0,
                             trust_clip=FALSE, nesterov=FALSE, lr_in_momentum=TRUE)
        none = matrix(0, rows=7, cols=1)
        [norm, of_velocity, of_weights, statistics] = optim::factors(registry, opt, lr, none, none, none)
        """
    )
    inputs, outputs = {"decay": 0.1, "lr": 0.3}, {"of_velocity": "matrix", "of_weights": "matrix"}
    found = engine_single.run(program, inputs, outputs)
    of_velocity, of_weights = (engine_single.to_numpy(found[name]) for name in outputs)
    assert of_velocity[:, 2].tolist() == [0.1, 0, 0, 0, 0, 0.1, 0]
    assert of_weights[:, 1].tolist() == [-0.3, -0.3, -0.3, 0, 0, -0.3, -0.3]


def test_gradients_are_added_tensor_by_tensor(dml):
    rng = np.random.default_rng(0)
    a, b, c, d = (rng.standard_normal(shape) for shape in ((2, 3), (1, 4), (2, 3), (1, 4)))
    program = "s = tensors::add(list(A, B), list(C, D))\nfirst = as.matrix(s[1])\nsecond = as.matrix(s[2])\n"
    first, second = dml(SOURCES + program, "first second", A=a, B=b, C=c, D=d)
    assert np.array_equal(first, a + c)
    assert np.array_equal(second, b + d)


def test_velocities_begin_at_zero_in_every_shape(quick_dml):
    program = """
    v = optim::init_velocities(list(A, B))
    first = as.matrix(v[1])
    second = as.matrix(v[2])
    """
    first, second = quick_dml(OPTIM + program, "first second", A=np.ones((2, 3)), B=np.ones((1, 4)))
    assert np.array_equal(first, np.zeros((2, 3)))
    assert np.array_equal(second, np.zeros((1, 4)))
