"""The DML programs from the command line, and that Python and they compute the same."""

import re
import shutil

import numpy as np
import pytest
from command_line import ROOT, assert_one_line_error, run_systemds

from sysds_resnet.engine.program import Program
from sysds_resnet.errors import UserError

DEPTH, CLASSES, SIZE = 18, 3, 32
BATCH, MICRO_BATCH, EPOCHS, SEED = 8, 4, 2, 7
OPTIMIZER = {"base_lr": 0.5, "warmup_epochs": 1, "momentum": 0.9, "weight_decay": 1e-4, "trust_coeff": 0.01}
PARTS = "".join(
    f'source("dml/{file}.dml") as {name}\n'
    for name, file in {
        "data": "training/data",
        "initial": "network/initialization",
        "loop": "training/loop",
        "optim": "optim/optimizer",
        "reg": "network/registry",
        "folding": "network/folding",
        "plans": "network/plan",
        "schedule": "optim/schedule",
        "trainer": "training/gradients",
        "weights": "network/weights",
    }.items()
)


@pytest.fixture(scope="module")
def images():
    """Training and validation images in 0..255, brighter in places that their class says, and labels."""
    rng = np.random.default_rng(0)
    labels = np.arange(24 + 10) % CLASSES + 1
    patterns = rng.uniform(0, 90, (CLASSES, 3 * SIZE * SIZE))
    pixels = np.rint(rng.uniform(0, 160, (len(labels), 3 * SIZE * SIZE)) + patterns[labels - 1])
    y = labels[:, None].astype(float)
    return {"X": pixels[:24], "Y": y[:24], "X_val": pixels[24:], "Y_val": y[24:]}


@pytest.fixture(scope="module")
def mean_std():
    return np.array([[125.0, 120.0, 130.0], [50.0, 55.0, 60.0]])


@pytest.fixture(scope="module")
def files(images, mean_std, tmp_path_factory):
    """The images as CSV files, without metadata except for one."""
    folder = tmp_path_factory.mktemp("data")
    for name, matrix in {**images, "mean_std": mean_std}.items():
        np.savetxt(folder / f"{name}.csv", matrix, fmt="%d", delimiter=",")
    rows, cols = mean_std.shape
    (folder / "mean_std.csv.mtd").write_text(
        f'{{"data_type": "matrix", "value_type": "double", "rows": {rows}, "cols": {cols}, '
        '"format": "csv", "header": false, "sep": ","}'
    )
    return {name: folder / f"{name}.csv" for name in [*images, "mean_std"]}


@pytest.fixture(scope="module")
def trained(files, tmp_path_factory):
    """What dml/train.dml makes of them: its output, the weights folder and the history."""
    folder = tmp_path_factory.mktemp("trained")
    outcome = run_systemds(
        "dml/train.dml",
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
    program = f"{PARTS}registry = reg::describe({DEPTH}, 3, {CLASSES})\n"
    return engine.run(program, {}, {"registry": "list"})["registry"]


@pytest.fixture(
    scope="module", params=[pytest.param(False, marks=pytest.mark.long), True], ids=["plain", "fused"]
)
def stepped(request, engine, registry, images, mean_std):
    """Whether with fused operators, and the tensors after the same training, step by step from Python."""
    start = f"""{PARTS}
    model = initial::init(registry, {SEED}, FALSE)
    velocities = optim::init_velocities(model)
    p = plans::build(registry, {MICRO_BATCH}, {SIZE}, {SIZE}, TRUE, FALSE)
    """
    names = ("model", "velocities", "p")
    state = engine.run(start, {"registry": registry}, dict.fromkeys(names, "list"))
    steps = len(images["X"]) // BATCH
    step = f"""{PARTS}
    pixels = data::normalize(X, mean, std)
    plan = schedule::plan("polynomial", {EPOCHS}, 1, base_lr, 0.0, 2.0, matrix(1, 1, 1), 1, 0.3, 25, 1e4)
    while(FALSE){{}}
    lr = schedule::rate(step, {steps}, plan)
    opt = optim::settings(name="lars", momentum=momentum, weight_decay=weight_decay,
      trust_coeff=trust_coeff, eps=0.0, trust_clip=FALSE, nesterov=FALSE, lr_in_momentum=TRUE)
    [grads, metrics] = trainer::batch_gradients(pixels, y, model, p, {MICRO_BATCH}, 0.0, 0, 1e-5)
    [model, velocities, grad_norm] = optim::update(model, grads, velocities, registry, opt, lr)
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
            outputs = {"model": "list", "velocities": "list", "metrics": "matrix"}
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
def test_snippet_of_the_seed_document_runs(tmp_path):
    script = tmp_path / "snippet.dml"
    script.write_text(
        'source("dml/resnet50_LARS.dml") as resnet50\n'
        "model = resnet50::init(C=3, num_classes=1000, seed=42)\n"
        "optim_state = resnet50::init_lars_optim_params(model)\n"
        'print("tensors " + length(model) + " " + length(optim_state))\n'
    )
    outcome = run_systemds(script)
    assert outcome.code == 0, outcome
    assert "tensors 267 267" in outcome.out


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


def test_evaluation_agrees_with_python(trained, files, evaluated, tmp_path):
    out = tmp_path / "result.csv"
    outcome = run_systemds(
        "dml/evaluate.dml",
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


def test_predictions_agree_with_python(trained, files, evaluated, tmp_path):
    out = tmp_path / "probabilities.csv"
    outcome = run_systemds(
        ROOT / "dml" / "predict.dml",
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
def test_public_face_trains_as_its_parts_do(tmp_path):
    """One step of `train` against `forward`, `backward` and the update, and `evaluate` against `predict`."""
    script = tmp_path / "face.dml"
    script.write_text("""
source("dml/resnet50_LARS.dml") as resnet50
source("dml/layers/cross_entropy.dml") as loss
X = rand(rows=4, cols=2*32*40, min=-1, max=1, seed=1)
Y = matrix("1 3 2 3", rows=4, cols=1)
one_hot = table(seq(1, 4), Y, 4, 3)
none = matrix(0, rows=0, cols=0)
[trained, velocities, history] = resnet50::train(X_train=X, Y_train=one_hot, X_val=none, Y_val=none, C=2,
  Hin=32, Win=40, num_classes=3, epochs=1, batch_size=4, base_lr=0.5, warmup_epochs=0, seed=3)

model = resnet50::init(C=2, num_classes=3, seed=3)
optim_state = resnet50::init_lars_optim_params(model)
[out, cache] = resnet50::forward(X, 32, 40, model, "train")
log_p = loss::log_softmax(out)
dout = loss::backward(log_p, one_hot) / 4
gradients = resnet50::backward(dout, cache, model)
[model, optim_state] = resnet50::update_params_with_lars(model, gradients, 0.5, 0.9, 1e-4, 0.001, optim_state)
worst = 0.0
for (t in 1:267) {
  A = as.matrix(trained[t])
  B = as.matrix(model[t])
  V = as.matrix(velocities[t])
  U = as.matrix(optim_state[t])
  worst = max(worst, max(abs(A - B)) / max(max(abs(B)), 1e-300), max(abs(V - U)))
}
print("worst difference " + worst)

[test_out, none_cached] = resnet50::forward(X, 32, 40, model, "test")
probabilities = resnet50::predict(X, 32, 40, model, 3)
[mean_loss, top1, top5] = resnet50::evaluate(X, Y, 32, 40, model, 4)
log_p = loss::log_softmax(test_out)
print("predict " + max(abs(exp(log_p) - probabilities)))
print("evaluate " + abs(mean_loss + sum(one_hot*log_p)/4) + " " + top5)
""")
    outcome = run_systemds(script)
    assert outcome.code == 0, outcome
    found = dict(line.rsplit(" ", 1) for line in outcome.out.splitlines() if " " in line)
    assert float(found["worst difference"]) < 1e-9
    assert float(found["predict"]) < 1e-12
    assert re.search(r"^evaluate \S*E-1[3-9] 1.0$|^evaluate 0.0 1.0$", outcome.out, re.M), outcome.out


@pytest.mark.long
def test_the_schedule_is_chosen_by_its_name(engine, files, tmp_path):
    engine.matrices.write(tmp_path / "milestones", np.array([[1.0], [2.0]]))
    outcome = run_systemds(
        ROOT / "dml" / "train.dml",
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


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ({}, ["arguments: found X= Y=", "expected all three"]),
        pytest.param(
            {"X": "X", "Y": "Y", "out": "weights", "format": "csv"},
            ["path does not exist"],
            marks=pytest.mark.long,
        ),
        pytest.param(
            {"X": "{X}", "Y": "{Y}", "out": "weights", "format": "csv", "C": 3, "depth": 20},
            ["depth: found 20"],
            marks=pytest.mark.long,
        ),
        pytest.param(
            {"X": "{X}", "Y": "{Y}", "out": "weights", "format": "csv", "depth": 18, "schedule": "square"},
            ["schedule: found square, expected polynomial, cosine, multistep, constant or onecycle"],
            marks=pytest.mark.long,
        ),
    ],
)
def test_wrong_arguments_end_with_one_line(arguments, found, files, tmp_path):
    arguments = {name: str(value).format(**files) for name, value in arguments.items()}
    outcome = run_systemds(ROOT / "dml" / "train.dml", cwd=tmp_path, **arguments)
    assert_one_line_error(outcome, *found)
    assert not (tmp_path / "weights").exists()


@pytest.mark.long
def test_unfinished_weights_are_refused(engine, trained, files, tmp_path):
    folder = tmp_path / "weights"
    shutil.copytree(trained[1], folder)
    engine.matrices.write(folder / "complete", np.zeros((1, 3)))
    arguments = {"weights": folder, "X": files["X_val"], "format": "csv", "out": tmp_path / "out"}
    outcome = run_systemds("dml/predict.dml", **arguments)
    assert_one_line_error(outcome, folder, "not written to the end")
    for file in ("complete", "complete.mtd"):
        (folder / file).unlink()
    outcome = run_systemds("dml/predict.dml", **arguments)
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


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"y": [[1.0], [2.0], [4.0], [3.0]]}, "labels: found values from 1.0 to 4.0, expected whole numbers"),
        ({"y": [[1.0], [2.0], [0.0], [3.0]]}, "labels: found values from 0.0 to 3.0, expected whole numbers"),
        ({"y": [[1.0], [2.0], [1.5], [3.0]]}, "labels: found values from 1.0 to 3.0, expected whole numbers"),
        ({"y": [[1.0], [2.0], [3.0]]}, "labels: found 3 for 4 images"),
        ({"y": [[1.0, 0], [0, 1.0], [1.0, 0], [0, 1.0]]}, "labels: found 2 columns, expected one"),
        ({"y": np.ones((4, 3))}, "labels: found 3 columns, expected one"),
        ({"X": np.full((4, 3 * SIZE * SIZE), np.nan)}, "images: found NaN or infinity"),
        ({"X": np.full((4, 3 * SIZE * SIZE), -np.inf)}, "images: found NaN or infinity"),
        ({"H": 64}, "images: found a matrix of 4 x 3072, expected a row of 6144 values"),
        ({"H": 16, "W": 64}, "image size: found 16 x 64 pixels, expected at least 32 x 32"),
        ({"epochs": 0}, "epochs: found 0, expected at least 1"),
        ({"batch_size": 5}, "batch_size: found 5 for 4 training images, expected 1 to 4"),
        ({"batch_size": 0}, "batch_size: found 0 for 4 training images, expected 1 to 4"),
        ({"micro_batch": 3}, "micro_batch: found 3 with batch_size 4, expected a divisor"),
        ({"micro_batch": 0}, "micro_batch: found 0 with batch_size 4, expected a divisor"),
    ],
)
def test_training_refuses_what_does_not_fit(engine, registry, changes, found):
    program = f"""{PARTS}
    opt = optim::settings(name=name, momentum=0.9, weight_decay=0.0, trust_coeff=0.001, eps=0.0,
                          trust_clip=FALSE, nesterov=FALSE, lr_in_momentum=TRUE)
    plan = schedule::plan("constant", epochs, 0, 1.0, 0.0, 2.0, matrix(1, 1, 1), 1, 0.3, 25, 1e4)
    while(FALSE){{}}
    [model, velocities, history] = loop::train(X=X, y=y, X_val=matrix(0, 0, 0), y_val=matrix(0, 0, 0),
      model=list(), velocities=list(), registry=registry, opt=opt, plan=plan, mean=matrix(0, 1, 3),
      std=matrix(1, 1, 3), H=H, W=W, batch_size=batch_size, micro_batch=micro_batch, label_smoothing=0.0,
      seed=1, eps=1e-5, blocks=list(), val_blocks=list())
    """
    inputs = {
        "name": "lars",
        "X": np.ones((4, 3 * SIZE * SIZE)),
        "y": np.array([[1.0], [2.0], [3.0], [1.0]]),
        "registry": registry,
        "H": SIZE,
        "W": SIZE,
        "epochs": 1,
        "batch_size": 4,
        "micro_batch": 2,
        **{name: np.asarray(v) if isinstance(v, list) else v for name, v in changes.items()},
    }
    with pytest.raises(UserError, match=re.escape(found)):
        engine.run(program, inputs, {"history": "matrix"})


def test_labels_may_be_one_hot(engine):
    program = f"{PARTS}y = data::class_numbers(Y, 4, 3)\n"
    labels = np.array([3, 1, 2, 3])
    y = engine.run(program, {"Y": np.eye(3)[labels - 1]}, {"y": "matrix"})["y"]
    assert engine.to_numpy(y)[:, 0].tolist() == labels.tolist()


@pytest.mark.parametrize(("given", "size"), [((0, 0), (40, 40)), ((32, 0), (32, 50)), ((0, 32), (50, 32))])
def test_image_size_follows_from_what_is_known(engine, given, size):
    program = f"{PARTS}[height, width] = data::image_size(X, 2, H, W)\n"
    inputs = {"X": np.zeros((1, 2 * 1600)), "H": given[0], "W": given[1]}
    results = engine.run(program, inputs, {"height": "int", "width": "int"})
    assert (results["height"], results["width"]) == size


def test_mean_and_std_are_checked(engine):
    program = f"{PARTS}[mean, std] = data::mean_std(rows, 2)\n"
    outputs = {"mean": "matrix", "std": "matrix"}
    results = engine.run(program, {"rows": np.array([[1.0, 2.0], [3.0, 4.0]])}, outputs)
    assert engine.to_numpy(results["mean"]).tolist() == [[1, 2]]
    assert engine.to_numpy(results["std"]).tolist() == [[3, 4]]
    for wrong in ([[1.0, 2.0], [0.0, 4.0]], [[1.0], [2.0]], [[1.0, 2.0]]):
        with pytest.raises(UserError, match="mean_std: found a matrix of"):
            engine.run(program, {"rows": np.array(wrong)}, outputs)
