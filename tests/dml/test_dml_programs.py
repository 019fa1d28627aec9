"""The DML programs from the command line, and that Python and they compute the same."""

import re
import shutil

import numpy as np
import pytest
from command_line import assert_one_line_error, run_systemds
from program_inputs import CLASSES, DEPTH, MEAN_STD, PARTS, SIZE, make_images, make_registry, write_files

from sysds_resnet.engine.program import Program
from sysds_resnet.errors import UserError

BATCH, MICRO_BATCH, EPOCHS, SEED = 8, 4, 2, 7
OPTIMIZER = {"base_lr": 0.2, "warmup_epochs": 1, "momentum": 0.9, "weight_decay": 1e-4, "trust_coeff": 0.01}


@pytest.fixture(scope="module")
def images():
    """Training and validation images in 0..255, brighter in places that their class says, and labels."""
    return make_images()


@pytest.fixture(scope="module")
def mean_std():
    return MEAN_STD


@pytest.fixture(scope="module")
def files(images, mean_std, tmp_path_factory):
    """The images as CSV files, without metadata except for one."""
    return write_files(tmp_path_factory.mktemp("data"), images, mean_std)


@pytest.fixture(scope="module")
def trained(files, narrow_package, tmp_path_factory):
    """What dml/train.dml makes of them: its output, the weights folder and the history."""
    folder = tmp_path_factory.mktemp("trained")
    outcome = run_systemds(
        "dml/train.dml",
        package=narrow_package,
        **files,
        format="csv",
        depth=DEPTH,
        num_classes=CLASSES,
        epochs=EPOCHS,
        batch_size=BATCH,
        micro_batch=MICRO_BATCH,
        seed=SEED,
        out=folder / "weights",
        history=folder / "history.csv",
        **OPTIMIZER,
    )
    assert outcome.code == 0, outcome
    return outcome.out, folder / "weights", np.loadtxt(folder / "history.csv", delimiter=",")


@pytest.fixture(scope="module")
def registry(engine):
    return make_registry(engine)


@pytest.fixture(
    scope="module", params=[pytest.param(False, marks=pytest.mark.long), True], ids=["plain", "fused"]
)
def stepped(request, engine, registry, images, mean_std):
    """Whether with fused operators, and the tensors after the same training, step by step from Python."""
    start = f"""{PARTS}
    model = initial::init(registry, {SEED}, FALSE)
    [first, second] = optim::init_moments(model, "lars")
    p = plans::build(registry, {MICRO_BATCH}, {SIZE}, {SIZE}, TRUE, FALSE)
    """
    names = ("model", "first", "second", "p")
    state = engine.run(start, {"registry": registry}, dict.fromkeys(names, "list"))
    steps = len(images["X"]) // BATCH
    step = f"""{PARTS}
    pixels = data::normalize(X, mean, std)
    plan = schedule::plan("polynomial", {EPOCHS}, 1, base_lr, 0.0, 2.0, matrix(1, 1, 1), 1, 0.3, 25, 1e4)
    while(FALSE){{}}
    lr = schedule::rate(step, {steps}, plan)
    opt = optim::settings(name="lars", momentum=momentum, weight_decay=weight_decay,
      trust_coeff=trust_coeff, eps=0.0, trust_clip=FALSE, nesterov=FALSE, lr_in_momentum=TRUE)
    settings = trainer::settings(mean, std, 0.0, 0, 1e-5)
    [grads, metrics] = trainer::batch_gradients(pixels, y, model, p, settings, {MICRO_BATCH})
    [model, first, second, grad_norm] = optim::update(model, grads, first, second, registry, opt, lr, step)
    """
    order = f"{PARTS}samples = data::order({len(images['X'])}, {SEED}, epoch, 1)\n"
    settings = {name: float(value) for name, value in OPTIMIZER.items() if name != "warmup_epochs"}
    for epoch in range(EPOCHS):
        samples = engine.run(order, {"epoch": epoch}, {"samples": "matrix"})["samples"]
        rows = engine.to_numpy(samples)[:, 0].astype(int) - 1
        for s in range(steps):
            batch = rows[s * BATCH : (s + 1) * BATCH]
            channels = images["X"][batch].reshape(BATCH, 3, -1)
            inputs = {
                "X": channels.transpose(0, 2, 1).reshape(-1, 3),
                "y": images["Y"][batch],
                "mean": mean_std[:1],
                "std": mean_std[1:],
                "step": epoch * steps + s,
                "registry": registry,
                **settings,
                **state,
            }
            outputs = {"model": "list", "first": "list", "second": "list", "metrics": "matrix"}
            state |= engine.run(Program(step, outputs, "host" if request.param else "plain"), inputs)
            del state["metrics"]
    pack = f"{PARTS}tensors = weights::pack(model, registry)\n"
    inputs = {"model": state["model"], "registry": registry}
    return request.param, engine.to_numpy(engine.run(pack, inputs, {"tensors": "matrix"})["tensors"])


def read_matrix(engine, path):
    return engine.to_numpy(engine.run(f'matrix = read("{path}")\n', {}, {"matrix": "matrix"})["matrix"])


@pytest.fixture(scope="module")
def evaluated(engine, registry, trained, images, mean_std):
    """Loss, top-1, top-5 and probabilities of the validation images, from Python."""
    program = f"""{PARTS}
    source("dml/layers/cross_entropy.dml") as loss
    [model, registry] = weights::load(architecture, tensors, "weights")
    plan = plans::build(registry, nrow(y), {SIZE}, {SIZE}, FALSE, FALSE)
    pixels = data::normalize(X, mean, std)
    folded = folding::fold(model, 1e-5)
    [metrics, logits] = trainer::evaluate(pixels, y, folded, plan)
    log_p = loss::log_softmax(logits)
    probabilities = exp(log_p)
    """
    n = len(images["X_val"])
    inputs = {
        "architecture": read_matrix(engine, trained[1] / "complete"),
        "tensors": read_matrix(engine, trained[1] / "tensors"),
        "X": images["X_val"].reshape(n, 3, -1).transpose(0, 2, 1).reshape(-1, 3),
        "y": images["Y_val"],
        "mean": mean_std[:1],
        "std": mean_std[1:],
    }
    results = engine.run(program, inputs, {"metrics": "matrix", "probabilities": "matrix"})
    metrics = engine.to_numpy(results["metrics"])[0]
    return metrics[:3] / n, engine.to_numpy(results["probabilities"])


@pytest.mark.long
def test_training_lowers_the_loss_and_says_so(trained):
    out, _, history = trained
    lines = re.findall(r"^epoch (\d)/2  step (\d)  train loss (\S+)  val loss (\S+)  top-1 ", out, re.M)
    assert [line[:2] for line in lines] == [("1", "3"), ("2", "6")]
    assert np.allclose([[float(x) for x in line[2:]] for line in lines], history[:, 2:4], atol=1e-4)
    assert history.shape == (EPOCHS, 9)
    assert history[:, :2].tolist() == [[1, 3], [2, 6]]
    assert history[-1, 2] < 0.8 * history[0, 2]
    assert np.isfinite(history).all()


def test_steps_from_python_give_the_same_weights(engine, trained, stepped):
    """To the last bit without fused operators, whose column sums round differently."""
    fused, tensors = stepped
    expected = read_matrix(engine, trained[1] / "tensors")
    if fused:
        assert np.abs(tensors - expected).max() <= 1e-7 * np.abs(expected).max()
    else:
        assert np.array_equal(tensors, expected)


@pytest.mark.long
def test_evaluation_agrees_with_python(narrow_package, trained, files, evaluated, tmp_path):
    out = tmp_path / "result.csv"
    outcome = run_systemds(
        "dml/evaluate.dml",
        package=narrow_package,
        weights=trained[1],
        X=files["X_val"],
        Y=files["Y_val"],
        mean_std=files["mean_std"],
        format="csv",
        batch_size=4,
        out=out,
    )
    assert outcome.code == 0, outcome
    *result, n = np.loadtxt(out, delimiter=",")
    assert n == 10
    assert result == pytest.approx(evaluated[0], rel=1e-12)
    assert result == pytest.approx(trained[2][-1, 3:6], rel=1e-12)
    assert f"10 images: loss {result[0]:.4f}" in outcome.out


def test_predictions_agree_with_python(narrow_package, trained, files, evaluated, tmp_path):
    out = tmp_path / "probabilities.csv"
    outcome = run_systemds(
        narrow_package / "sysds_resnet" / "dml" / "predict.dml",
        package=narrow_package,
        cwd=tmp_path,  # what the program sources is found from anywhere
        weights=trained[1],
        X=files["X_val"],
        mean_std=files["mean_std"],
        format="csv",
        out=out,
        out_format="csv",
    )
    assert outcome.code == 0, outcome
    assert np.allclose(np.loadtxt(out, delimiter=","), evaluated[1], rtol=1e-10, atol=0)


@pytest.mark.long
def test_the_schedule_is_chosen_by_its_name(engine, narrow_package, files, tmp_path):
    engine.matrices.write(tmp_path / "milestones", np.array([[1.0], [2.0]]))
    outcome = run_systemds(
        "dml/train.dml",
        package=narrow_package,
        X=files["X"],
        Y=files["Y"],
        format="csv",
        depth=18,
        epochs=3,
        batch_size=24,
        micro_batch=8,
        optimizer="sgd",
        schedule="multistep",
        milestones=tmp_path / "milestones",
        gamma=0.5,
        base_lr=0.01,
        warmup_epochs=0,
        out=tmp_path / "weights",
        history=tmp_path / "history.csv",
    )
    assert outcome.code == 0, outcome
    assert np.loadtxt(tmp_path / "history.csv", delimiter=",")[:, 6].tolist() == [0.01, 0.005, 0.0025]


@pytest.mark.long
def test_unfinished_weights_are_refused(engine, narrow_package, trained, files, tmp_path):
    folder = tmp_path / "weights"
    shutil.copytree(trained[1], folder)
    engine.matrices.write(folder / "complete", np.zeros((1, 3)))
    arguments = {"weights": folder, "X": files["X_val"], "format": "csv", "out": tmp_path / "out"}
    outcome = run_systemds("dml/predict.dml", package=narrow_package, **arguments)
    assert_one_line_error(outcome, folder, "not written to the end")
    for file in ("complete", "complete.mtd"):
        (folder / file).unlink()
    outcome = run_systemds("dml/predict.dml", package=narrow_package, **arguments)
    assert_one_line_error(outcome, folder / "complete", "does not exist")


def test_weights_with_a_lost_part_are_refused(engine, trained):
    tensors = read_matrix(engine, trained[1] / "tensors")
    tensors[len(tensors) // 2 :] = 0  # as the engine reads them
    program = f'{PARTS}[model, registry] = weights::load(architecture, tensors, "folder")\n'
    inputs = {"architecture": np.array([[DEPTH, 3.0, CLASSES]]), "tensors": tensors}
    with pytest.raises(UserError, match=r"folder/tensors: found only zeros in layer4\.\S*running_var"):
        engine.run(program, inputs, {"model": "list"})
    with pytest.raises(
        UserError, match=r"folder/tensors: found 9 x 1 values, expected \d+ x 1 for ResNet-18"
    ):
        engine.run(program, {**inputs, "tensors": tensors[:9]}, {"model": "list"})
