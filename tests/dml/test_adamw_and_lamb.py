"""AdamW against PyTorch's, and LAMB against its paper's formulas and optax, over updates of every role."""

import numpy as np
import pytest
import torch
from dml_runner import assert_close
from optim_formulas import lamb_step
from program_inputs import CLASSES, DEPTH, MEAN_STD, PARTS, SIZE, make_images
from reference import relative_error

from sysds_resnet import ResNet
from sysds_resnet.errors import UserError

OPTIM = 'source("dml/optim/optimizer.dml") as optim\n'
UPDATES = 12
RATES = np.concatenate([np.linspace(0.01, 0.05, 4), 0.05 * (1 - np.linspace(0, 0.9, 8)) ** 2])
CONV, SCALE, SHIFT, MEAN, VAR, FC, BIAS = range(7)  # the roles, in the order of dml/network/registry.dml
STATISTICS = (MEAN, VAR)
PARAMETERS = [role for role in range(7) if role not in STATISTICS]
SETTINGS = dict(
    weight_decay=0.05,
    norm_weight_decay=0.02,
    bias_weight_decay=0.03,
    conv_lr_factor=0.5,
    norm_lr_factor=2.0,
    fc_lr_factor=3.0,
    clip_norm=0.0,
    beta1=0.8,
    beta2=0.95,
    adam_eps=1e-3,
)
LR_FACTORS = {CONV: 0.5, SCALE: 2.0, SHIFT: 2.0, FC: 3.0, BIAS: 3.0}
DECAYS = {CONV: 0.05, SCALE: 0.02, SHIFT: 0.02, FC: 0.05, BIAS: 0.03}


def problem(rows=4, columns=3):
    """A tensor of each role, and its gradients, one below the other; the gradients' sizes differ by role."""
    rng = np.random.default_rng(0)
    shapes = [(rows if role in (CONV, FC) else 1, columns) for role in range(7)]
    tensors = [rng.standard_normal(shape) for shape in shapes]
    sizes = 10.0 ** np.arange(-4, 3)
    gradients = [k * rng.standard_normal((UPDATES, *shape)) for k, shape in zip(sizes, shapes, strict=True)]
    gradients[CONV][:, 0] = 0  # as the borders of filters have for images of a pixel
    return tensors, gradients


def run(dml, name, tensors, gradients, rates=RATES, **settings):
    """Apply the updates of an optimizer in DML; give the tensors, the first and the second moments."""
    settings = SETTINGS | settings
    parts = ", ".join(f"g{i}[((k-1)*nrow(w{i}) + 1):(k*nrow(w{i})),]" for i in range(7))
    found = dml(
        OPTIM
        + f"""registry = list(tensors=cbind(seq(1, 7), matrix(0, rows=7, cols=1)))
        opt = optim::settings(name=name, momentum=0.9, trust_coeff=0.001, eps=0.0, trust_clip=FALSE,
                              nesterov=FALSE, lr_in_momentum=TRUE, {", ".join(f"{n}={n}" for n in settings)})
        model = list({", ".join(f"w{i}" for i in range(7))})
        [first, second] = optim::init_moments(model, name)
        for (k in 1:nrow(rates)) {{
          grads = list({parts})
          lr = as.scalar(rates[k,1])
          [model, first, second, norm] = optim::update(model, grads, first, second, registry, opt, lr, k - 1)
        }}
        """
        + "".join(
            f"{kind}{i} = as.matrix({moment}[{i + 1}])\n"
            for kind, moment in {"w": "model", "m": "first", "v": "second"}.items()
            for i in range(7)
        ),
        " ".join(f"{kind}{i}" for kind in "wmv" for i in range(7)),
        name=name,
        rates=rates[:, None],
        **{f"w{i}": w for i, w in enumerate(tensors)},
        **{f"g{i}": np.concatenate(g) for i, g in enumerate(gradients)},
        **settings,
    )
    return found[:7], found[7:14], found[14:]


def assert_statistics_moved(found, tensors, gradients):
    for role in STATISTICS:
        expected = tensors[role]
        for batch in gradients[role]:
            expected = 0.9 * expected + 0.1 * batch
        assert_close(found[role], expected)


@pytest.mark.parametrize(
    ("rows", "columns", "settings"),
    [
        (4, 3, {}),
        (4, 3, {"beta1": 0.9, "beta2": 0.999, "adam_eps": 1e-8}),
        (4, 3, {"beta1": 0.0, "beta2": 0.0}),
        (4, 3, {"clip_norm": 150.0}),  # of some updates
        pytest.param(700, 400, {}, marks=pytest.mark.long),  # shared among threads
    ],
    ids=str,
)
def test_adamw_is_pytorchs(dml, rows, columns, settings):
    tensors, gradients = problem(rows, columns)
    found, first, second = run(dml, "adamw", tensors, gradients, **settings)
    s = SETTINGS | settings
    parameters = {role: torch.nn.Parameter(torch.from_numpy(tensors[role].copy())) for role in PARAMETERS}
    groups = [{"params": [w], "weight_decay": DECAYS[role]} for role, w in parameters.items()]
    optimizer = torch.optim.AdamW(groups, lr=1.0, betas=(s["beta1"], s["beta2"]), eps=s["adam_eps"])
    clipped = 0
    for k, lr in enumerate(RATES):
        for role, group in zip(PARAMETERS, optimizer.param_groups, strict=True):
            group["lr"] = lr * LR_FACTORS[role]
            parameters[role].grad = torch.from_numpy(gradients[role][k].copy())
        if bound := s["clip_norm"]:
            clipped += torch.nn.utils.clip_grad_norm_(parameters.values(), bound).item() > bound
        optimizer.step()
    assert not s["clip_norm"] or 0 < clipped < UPDATES, "or nothing is tested"
    for role, w in parameters.items():
        assert_close(found[role], w.detach().numpy())
        assert_close(first[role], optimizer.state[w]["exp_avg"].numpy())
        assert_close(second[role], optimizer.state[w]["exp_avg_sq"].numpy())
    assert_statistics_moved(found, tensors, gradients)


def no_weights(tensors, gradients):
    tensors[FC][:] = 0


def no_gradients_at_first(tensors, gradients):
    for gradient in gradients:
        gradient[:2] = 0


@pytest.mark.parametrize("change", [None, no_weights, no_gradients_at_first])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"weight_decay": 0.0, "norm_weight_decay": 0.0, "bias_weight_decay": 0.0},
        {"beta1": 0.9, "beta2": 0.999, "adam_eps": 1e-6},  # the authors' code
    ],
    ids=str,
)
def test_lamb_follows_its_paper(dml, settings, change):
    tensors, gradients = problem()
    if change:
        change(tensors, gradients)
    found, first, second = run(dml, "lamb", tensors, gradients, **settings)
    s = SETTINGS | settings
    for role in PARAMETERS:
        w, m, v = tensors[role], np.zeros_like(tensors[role]), np.zeros_like(tensors[role])
        decay = DECAYS[role] if s["weight_decay"] else 0.0
        for k, lr in enumerate(LR_FACTORS[role] * RATES):
            adam = s["beta1"], s["beta2"], s["adam_eps"]
            w, m, v = lamb_step(w, gradients[role][k], m, v, k + 1, lr, decay, *adam, role in (CONV, FC))
        assert_close(found[role], w)
        assert_close(first[role], m)
        assert_close(second[role], v)
    assert_statistics_moved(found, tensors, gradients)


@pytest.mark.long
@pytest.mark.parametrize("change", [None, no_weights, no_gradients_at_first])
def test_lamb_is_optaxs(dml, change):
    """Of the weights of a convolution: optax gives every tensor a trust ratio."""
    import jax
    import optax

    tensors, gradients = problem()
    if change:
        change(tensors, gradients)
    found, *_ = run(dml, "lamb", tensors, gradients)
    with jax.enable_x64():
        rates = jax.numpy.asarray(RATES)
        for role in (CONV, FC):
            optimizer = optax.lamb(
                lambda step, factor=LR_FACTORS[role]: factor * rates[step],
                b1=SETTINGS["beta1"],
                b2=SETTINGS["beta2"],
                eps=SETTINGS["adam_eps"],
                weight_decay=SETTINGS["weight_decay"],
            )
            params = jax.numpy.asarray(tensors[role])
            state = optimizer.init(params)
            for g in gradients[role]:
                updates, state = optimizer.update(jax.numpy.asarray(g), state, params)
                params = optax.apply_updates(params, updates)
            expected = np.asarray(params)
            assert expected.dtype == np.float64
            assert_close(found[role], expected)


def test_a_state_without_second_moments_is_refused(quick_dml):
    program = (
        OPTIM
        + """registry = list(tensors=cbind(seq(1, 7), matrix(0, rows=7, cols=1)))
        opt = optim::settings(name="adamw", momentum=0.9, weight_decay=0.0, trust_coeff=0.001, eps=0.0,
                              trust_clip=FALSE, nesterov=FALSE, lr_in_momentum=TRUE)
        model = list(W, W, W, W, W, W, W)
        [first, second] = optim::init_moments(model, "sgd")
        [model, first, second, grad_norm] = optim::update(model, model, first, second, registry, opt, 0.1, 0)
        """
    )
    with pytest.raises(UserError, match="second moments: found 0 matrices for 7 tensors, expected one for"):
        quick_dml(program, "grad_norm:double", W=np.ones((2, 2)))


@pytest.mark.long
@pytest.mark.parametrize("name", ["adamw", "lamb"])
def test_the_loop_in_dml_trains_as_fit_does(engine, name):
    """Two epochs of three steps each."""
    images, batches = make_images(), dict(batch_size=8, micro_batch=4)
    pixels = images["X"].reshape(-1, 3, SIZE, SIZE).transpose(0, 2, 3, 1).astype(np.uint8)
    model = ResNet(DEPTH, CLASSES, seed=7, engine=engine, mean=MEAN_STD[0], std=MEAN_STD[1])
    settings = dict(optimizer=name, base_lr=0.01, weight_decay=0.05, beta1=0.8, beta2=0.99, adam_eps=1e-6)
    labels = images["Y"][:, 0].astype(int) - 1
    table = model.fit(pixels, labels, epochs=2, warmup_epochs=1, seed=7, **batches, **settings)
    program = f"""{PARTS}
    model = initial::init(registry, 7, FALSE)
    [first, second] = optim::init_moments(model, optimizer)
    opt = optim::settings(name=optimizer, momentum=0.9, weight_decay=weight_decay, trust_coeff=0.001, eps=0.0,
      trust_clip=FALSE, nesterov=FALSE, lr_in_momentum=TRUE, beta1=beta1, beta2=beta2, adam_eps=adam_eps)
    plan = schedule::plan("polynomial", 2, 1, base_lr, 0.0, 2.0, matrix(1, 1, 1), 1, 0.3, 25, 1e4)
    settings = trainer::settings(mean, std, 0.0, 0, 1e-5)
    recipe = loop::recipe(optimizer=opt, schedule=plan, gradients=settings, seed=7)
    nothing = matrix(0, 0, 0)
    images = list(X=X, Y=Y, blocks=list())
    validation = list(X=nothing, Y=nothing, blocks=list())
    while(FALSE){{}}
    [model, first, second, history] = loop::train(images, validation, model, first, second, registry, recipe,
      {SIZE}, {SIZE}, batch_size, micro_batch, 0, FALSE)
    """
    inputs = {"registry": model.network.registry, "X": images["X"], "Y": images["Y"]}
    inputs |= {"mean": MEAN_STD[:1], "std": MEAN_STD[1:], **batches, **settings}
    found = engine.run(program, inputs, {"model": "list", "history": "matrix"})
    losses = engine.to_numpy(found["history"])[:, 2]
    assert losses == pytest.approx(table["train_loss"].to_numpy(), rel=1e-9) and losses[1] < losses[0]
    assert relative_error(model.network.from_engine(found["model"]), model.state_dict()) < 1e-9
