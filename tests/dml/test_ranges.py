"""Hyperparameters out of their range are refused, and DML and Python have the same ranges."""

import math
import re

import numpy as np
import pytest
from command_line import ROOT, assert_one_line_error, run_systemds

from sysds_resnet.errors import UserError
from sysds_resnet.settings.command_line import build
from sysds_resnet.training.hyperparameters import HYPERPARAMETERS
from sysds_resnet.training.schedule import PLAN
from sysds_resnet.training.settings import TrainSettings

REAL = [-1.0, -1e-9, 0.0, 1e-9, 0.5, 1 - 1e-9, 1.0, 1 + 1e-9, 1.5, 25.0, math.inf, math.nan]
WHOLE = [-1, 0, 1, 2, 2**31 - 1, 2**31]
SOURCES = "".join(
    f'source("dml/{file}.dml") as {name}\n'
    for name, file in {
        "data": "training/data",
        "trainer": "training/gradients",
        "loop": "training/loop",
        "loss": "layers/cross_entropy",
        "optim": "optim/optimizer",
        "reg": "network/registry",
        "initial": "network/initialization",
        "schedule": "optim/schedule",
    }.items()
)
ALL = f"""{SOURCES}{PLAN}
opt = optim::settings(name=optimizer, momentum=momentum, weight_decay=weight_decay, trust_coeff=trust_coeff,
                      eps=trust_eps, trust_clip=FALSE, nesterov=FALSE, lr_in_momentum=TRUE,
                      norm_weight_decay=norm_weight_decay, bias_weight_decay=bias_weight_decay,
                      conv_lr_factor=conv_lr_factor, norm_lr_factor=norm_lr_factor, fc_lr_factor=fc_lr_factor,
                      clip_norm=clip_norm, beta1=beta1, beta2=beta2, adam_eps=adam_eps)
samples = data::order(4, seed, 0, 1)
settings = trainer::settings(matrix(0, 1, 3), matrix(1, 1, 3), label_smoothing, 0, 1e-5)
recipe = loop::recipe(opt, plan, settings, seed, ema_decay, ema_every, 1)
nothing = matrix(0, 0, 0)
X = matrix(1, 4, 3072)
images = list(X=X, Y=0*samples + 1, blocks=list())
validation = list(X=nothing, Y=nothing, blocks=list())
while(FALSE){{}}
[model, first, second, history] = loop::train(images, validation, list(), list(), list(), registry, recipe,
  32, 32, batch_size, 0, 0, FALSE)
"""
ALL_FITS = "micro_batch: found 0"  # where the program stops if nothing before is wrong
NO_NUMBERS = {"schedule", "optimizer", "trust_clip", "lr_in_momentum"}


@pytest.fixture(scope="module")
def registry(engine):
    program = f"{SOURCES}registry = reg::describe(18, 3, 2)\n"
    return engine.run(program, {}, {"registry": "list"})["registry"]


@pytest.fixture(scope="module")
def refused_by_dml(engine, registry):
    """What a program stops with that trains with the default settings but for one, or None."""
    settings = TrainSettings(batch_size=4)
    defaults = {name: getattr(settings, name) for name in HYPERPARAMETERS}
    defaults |= settings.make_schedule(1).inputs() | {"registry": registry}

    def refused(name, value):
        with pytest.raises(UserError) as error:
            engine.run(ALL, {**defaults, name: value}, {"history": "matrix"})
        message = str(error.value)
        return None if message.startswith(ALL_FITS) else message

    return refused


def refused_by_python(name, value):
    try:
        build(TrainSettings, {name: value})
    except UserError as error:
        return str(error)
    return None


@pytest.mark.parametrize("name", sorted(set(HYPERPARAMETERS) - NO_NUMBERS))
def test_python_and_dml_refuse_the_same_values(refused_by_dml, name):
    whole = TrainSettings.model_fields[name].annotation is int
    values = [value for value in (WHOLE if whole else REAL) if (name, value) != ("batch_size", 2**31)]
    if name == "batch_size":  # at most the four images that there are
        values = [-1, 0, 1, 4]
    if name == "warmup_epochs":  # at most the epochs, which DML programs check by themselves
        values.remove(25.0)
    if name == "epochs":
        values.remove(2**31)
        values = list(map(float, values))
    verdicts = {}
    for value in values:
        verdicts[value] = refused_by_dml(name, value), refused_by_python(name, value)
    assert {value for value, (dml, _) in verdicts.items() if dml} == {
        value for value, (_, python) in verdicts.items() if python
    }
    messages = [message for both in verdicts.values() for message in both if message]
    assert messages and all(name in message and "expected" in message for message in messages)


def test_fractions_of_an_epoch_are_refused(refused_by_dml):
    assert refused_by_dml("epochs", 2.5) == "epochs: found 2.5, expected a whole number"
    assert "epochs: found 2.5" in refused_by_python("epochs", 2.5)


@pytest.mark.parametrize(
    ("milestones", "fits"),
    [([1.0], True), ([1.0, 2.5], True), ([2.0, 1.0], False), ([1.0, 1.0], False), ([0.0, 1.0], False)],
)
def test_milestones_increase(engine, milestones, fits):
    inputs = TrainSettings().make_schedule(1).inputs()
    inputs |= {"name": "multistep", "milestones": np.array(milestones)[:, None]}
    program = f"{SOURCES}{PLAN}"
    python = {"schedule": "multistep", "milestones": milestones}
    if fits:
        engine.run(program, inputs, {"plan": "list"})
        build(TrainSettings, python)
    else:
        with pytest.raises(
            UserError, match=r"milestones: found a matrix of .* expected epochs that increase"
        ):
            engine.run(program, inputs, {"plan": "list"})
        with pytest.raises(UserError, match=r"milestones: found .* expected"):
            build(TrainSettings, python)


def test_a_schedule_beyond_the_run_is_refused_but_not_a_recipe_that_is_tried():
    with pytest.raises(UserError, match="warmup_epochs: found 9 with 8 epochs, expected at most as many"):
        build(TrainSettings, {"warmup_epochs": 9})
    with pytest.raises(UserError, match=r"milestones: found \[30.0, 60.0, 80.0\], expected .* below 8"):
        build(TrainSettings, {"schedule": "multistep"})
    assert build(TrainSettings, {"schedule": "onecycle", "warmup_epochs": 9}).epochs == 8
    for recipe in ("torchvision-v1", "mlperf-4096"):
        assert build(TrainSettings, {"recipe": recipe, "epochs": 1}).epochs == 1


@pytest.mark.parametrize(
    ("call", "found"),
    [
        ("registry = reg::describe(42, 3, 10)", "depth: found 42, expected 18, 34, 50, 101 or 152"),
        ("registry = reg::describe(18, 0, 10)", "C: found 0 channels, expected at least 1"),
        ("registry = reg::describe(18, 3, 1)", "num_classes: found 1, expected at least 2"),
        ("a = matrix(reg::frozen_units(registry, 9), 1, 1)", "freeze: found 9 parts, expected 0 to 5"),
        ("a = initial::init(registry, -1, FALSE)", "seed: found -1, expected a whole number from 0"),
        ("a = loss::targets(matrix(1, 1, 1), 2, 1.5)", "label_smoothing: found 1.5, expected a number of"),
        ("a = data::order(4, 1, 0, 0)", "shuffle_block: found 0, expected at least 1"),
    ],
)
def test_sizes_that_no_network_has_are_refused(engine, registry, call, found):
    name = "registry" if call.startswith("registry") else "a"
    kind = {"registry": "list", "a": "list" if "initial" in call else "matrix"}[name]
    with pytest.raises(UserError, match=re.escape(found)):
        engine.run(f"{SOURCES}{call}\n", {"registry": registry}, {name: kind})


FACE = 'source("dml/resnet50_LARS.dml") as resnet50\n'


def test_the_public_face_refuses_them_too(engine):
    settings = dict(C=1, Hin=32, Win=32, num_classes=2, epochs=1, batch_size=4, micro_batch=4, base_lr=1.0)
    settings |= dict(end_lr=0.0, power=2.0, warmup_epochs=0.0, momentum=0.9, weight_decay=1e-4)
    settings |= dict(trust_coeff=0.001, eps=0.0, label_smoothing=0.0, seed=1)
    settings = {name: value if name in ("Hin", "Win") else float(value) for name, value in settings.items()}
    listed = ", ".join(f"{name}={name}" for name in settings)
    program = (
        f"{FACE}X = matrix(1, 4, 1024)\nY = matrix(1, 4, 1)\nnone = matrix(0, 0, 0)\n"
        f"[model, state, history] = resnet50::train(X_train=X, Y_train=Y, X_val=none, Y_val=none, {listed})\n"
    )
    for change, found in {
        "momentum=2": "momentum: found 2.0",
        "power=-1": "power: found -1.0",
        "base_lr=0": "base_lr: found 0.0",
        "base_lr=nan": "base_lr: found NaN",
        "epochs=2.5": "epochs: found 2.5, expected a whole number",
        "batch_size=2.5": "train: found batch_size=2.5",
        "trust_coeff=0": "trust_coeff: found 0.0",
        "weight_decay=-1e-4": "weight_decay: found -1.0E-4",
        "warmup_epochs=2": "warmup_epochs: found 2.0 with 1.0 epochs",
        "seed=-1": "seed: found -1",
        "num_classes=1": "num_classes: found 1",
        "label_smoothing=1.5": "label_smoothing: found 1.5",
    }.items():
        name, value = change.split("=")
        with pytest.raises(UserError, match=re.escape(found)):
            engine.run(program, {**settings, name: float(value)}, {"history": "matrix"})


def test_an_update_of_the_public_face_refuses_them_too(engine):
    for given, found in (("-0.1, 0.9", "lr: found -0.1"), ("0.1, 1.0", "momentum: found 1.0")):
        program = (
            f"{FACE}model = resnet50::init(C=1, num_classes=2, seed=1)\n"
            "state = resnet50::init_lars_optim_params(model)\n"
            f"[model, state] = resnet50::update_params_with_lars(model, state, {given}, 1e-4, 0.001, state)\n"
        )
        with pytest.raises(UserError, match=re.escape(found)):
            engine.run(program, {}, {"state": "list"})


def test_train_dml_has_the_defaults_of_the_command():
    text = (ROOT / "dml" / "train.dml").read_text()
    defaults = dict(re.findall(r'^\w+ = ifdef\(\$(\w+), "?([^")]*)"?\)$', text, re.M))
    settings = TrainSettings()
    for name in set(HYPERPARAMETERS) | {"zero_init_residual", "lars_nesterov"}:
        value = getattr(settings, name)
        found = defaults[name]
        assert (float(found) if isinstance(value, float) else type(value)(eval_bool(found))) == value, name


def eval_bool(text):
    return {"TRUE": True, "FALSE": False}.get(text, text)


@pytest.mark.long
@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"batch_size": 4.5}, "batch_size: found 4.5, expected a whole number of at least 1"),
        ({"H": -32}, "H: found -32, expected a whole number of"),
        ({"freeze": 1.5}, "freeze: found 1.5, expected a whole number"),
        ({"format": "CSV"}, "format: found CSV, expected csv or mtd"),
        ({"warmup_epochs": 9}, "warmup_epochs: found 9 with 8 epochs"),
        ({"X_val": "x"}, "X_val, Y_val: found x and"),
        ({"base_lr": "NaN"}, "base_lr: found NaN"),
    ],
)
def test_train_dml_refuses_what_is_no_number_of_images_or_the_like(tmp_path, change, found):
    np.savetxt(tmp_path / "X.csv", np.ones((8, 1024)), fmt="%d", delimiter=",")
    np.savetxt(tmp_path / "Y.csv", np.arange(8) % 2 + 1, fmt="%d")
    settings = {"X": "X.csv", "Y": "Y.csv", "out": "w", "format": "csv", "depth": 18, "C": 1, "batch_size": 4}
    outcome = run_systemds(ROOT / "dml" / "train.dml", cwd=tmp_path, **{**settings, **change})
    assert_one_line_error(outcome, found)
    assert not (tmp_path / "w").exists()
