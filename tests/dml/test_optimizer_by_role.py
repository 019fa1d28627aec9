"""The optimizer that a name chooses: its settings, and each role's update against formulas in NumPy.

AdamW and LAMB have their updates in test_adamw_and_lamb.py.
"""

import numpy as np
import pytest
from dml_runner import assert_close
from optim_formulas import momentum_step, trust_ratio

from sysds_resnet.errors import UserError

OPTIM = 'source("dml/optim/optimizer.dml") as optim\n'


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
        [model, velocities, none, norm] = optim::update(model, grads, velocities, list(), registry, opt,
                                                           lr, 0)
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


def test_norms_of_tensors_of_any_size(dml):
    """Of one element too, as the placeholders of gradients wrt frozen tensors are."""
    norms = dml(
        """source("dml/optim/tensors.dml") as tensors
        L = list(matrix(-3, rows=1, cols=1), matrix(2, rows=2, cols=2), matrix(5, rows=1, cols=3))
        norms = tensors::norms(L, matrix("1 1 0", rows=3, cols=1))
        """,
        "norms",
    )
    assert norms.tolist() == [[3.0], [4.0], [0.0]]


@pytest.mark.parametrize(
    ("name", "nesterov", "inside", "expected"),
    [
        ("lars", False, True, (1, 0, 1)),
        ("lars", True, False, (1, 1, 0)),
        ("sgd", False, True, (0, 0, 0)),  # the rate of SGD is outside, as PyTorch's
        ("nesterov", False, True, (0, 1, 0)),
        ("adamw", False, False, (0, 0, 0)),
        ("lamb", False, False, (1, 0, 0)),
    ],
)
def test_optimizer_by_name(quick_dml, name, nesterov, inside, expected):
    settings = quick_dml(
        OPTIM
        + """opt = optim::settings(name=name, momentum=0.9, weight_decay=0.01, trust_coeff=0.001, eps=0.0,
                             trust_clip=FALSE, nesterov=nesterov, lr_in_momentum=inside)
        out = matrix(0, rows=1, cols=3)
        out[1,1] = as.integer(as.scalar(opt["trust_ratios"]))
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
    with pytest.raises(UserError, match="optimizer: found adam, expected lars, sgd, nesterov, adamw or lamb"):
        quick_dml(program, "n:int")


def test_settings_of_an_update_are_fp64_in_single_precision(engine_single):
    program = (
        OPTIM
        + """source("dml/optim/lars.dml") as lars
        registry = list(tensors=cbind(seq(1, 7), matrix(0, rows=7, cols=1)))
        opt = optim::settings(name="sgd", momentum=0.9, weight_decay=decay, trust_coeff=0.001, eps=0.0,
                             trust_clip=FALSE, nesterov=FALSE, lr_in_momentum=TRUE)
        none = matrix(0, rows=7, cols=1)
        [norm, scale, lrs, decays, statistics] = optim::rates(registry, opt, lr, none)
        [of_velocity, of_weights] = lars::factors(opt, lrs, decays, scale, none, none, none)
        """
    )
    inputs, outputs = {"decay": 0.1, "lr": 0.3}, {"of_velocity": "matrix", "of_weights": "matrix"}
    found = engine_single.run(program, inputs, outputs)
    of_velocity, of_weights = (engine_single.to_numpy(found[name]) for name in outputs)
    assert of_velocity[:, 2].tolist() == [0.1, 0, 0, 0, 0, 0.1, 0]
    assert of_weights[:, 1].tolist() == [-0.3, -0.3, -0.3, 0, 0, -0.3, -0.3]


@pytest.mark.parametrize(
    ("name", "count"), [("lars", 0), ("sgd", 0), ("nesterov", 0), ("adamw", 2), ("lamb", 2)]
)
def test_moments_begin_at_zero_in_every_shape(quick_dml, name, count):
    program = """
    [first, second] = optim::init_moments(list(A, B), name)
    count = length(second)
    a = as.matrix(first[1])
    b = as.matrix(first[2])
    if (count > 0) {
      a = rbind(a, as.matrix(second[1]))
      b = rbind(b, as.matrix(second[2]))
    }
    """
    inputs = {"A": np.ones((2, 3)), "B": np.ones((1, 4)), "name": name}
    a, b, found = quick_dml(OPTIM + program, "a b count:int", **inputs)
    times = 2 if count else 1
    assert found == count
    assert np.array_equal(a, np.zeros((2 * times, 3)))
    assert np.array_equal(b, np.zeros((times, 4)))


@pytest.mark.parametrize("name", ["lars", "sgd", "nesterov", "adamw", "lamb"])
def test_frozen_units_stay_and_the_norm_is_that_of_the_others(dml, name):
    """A frozen unit has 1 x 1 gradients (dml/network/backward.dml)."""
    rng = np.random.default_rng(0)
    filters, row, gradient = (rng.standard_normal(shape) for shape in ((4, 3), (1, 3), (4, 3)))
    program = """
    units = matrix("1 1 1 1 1 2", rows=6, cols=1)
    registry = list(tensors=cbind(matrix("1 2 3 4 5 1", rows=6, cols=1), units))
    opt = optim::settings(name=name, momentum=0.9, weight_decay=0.01, trust_coeff=0.001, eps=0.0,
                          trust_clip=FALSE, nesterov=FALSE, lr_in_momentum=TRUE, clip_norm=0.5, frozen=1)
    model = list(filters, row, row, row, row, filters)
    none = matrix(0, rows=1, cols=1)
    grads = list(none, none, none, none, none, gradient)
    [first, second] = optim::init_moments(model, name)
    for (k in 1:2) {
      [model, first, second, norm] = optim::update(model, grads, first, second, registry, opt, 0.1, k - 1)
    }
    a = as.matrix(model[1])
    b = as.matrix(model[2])
    c = as.matrix(model[5])
    trained = as.matrix(model[6])
    """
    inputs = dict(filters=filters, row=row, gradient=gradient, name=name)
    a, b, c, trained, norm = dml(OPTIM + program, "a b c trained norm:double", **inputs)
    assert np.array_equal(a, filters) and np.array_equal(b, row) and np.array_equal(c, row)
    assert not np.array_equal(trained, filters)
    assert norm == pytest.approx(np.linalg.norm(gradient), rel=1e-14)
