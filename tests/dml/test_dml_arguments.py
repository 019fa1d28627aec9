"""What the DML programs are given: images, labels and sizes that fit, and one line for what does not."""

import re

import numpy as np
import pytest
from command_line import ROOT, assert_one_line_error, run_systemds
from program_inputs import MEAN_STD, PARTS, SIZE, make_images, make_registry, write_files

from sysds_resnet.errors import UserError


@pytest.fixture(scope="module")
def images():
    """Training and validation images in 0..255, brighter in places that their class says, and labels."""
    return make_images()


@pytest.fixture(scope="module")
def files(images, tmp_path_factory):
    """The images as CSV files, without metadata except for one."""
    return write_files(tmp_path_factory.mktemp("data"), images, MEAN_STD)


@pytest.fixture(scope="module")
def registry(engine):
    return make_registry(engine)


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
    settings = trainer::settings(matrix(0, 1, 3), matrix(1, 1, 3), 0.0, 0, 1e-5)
    recipe = loop::recipe(optimizer=opt, schedule=plan, gradients=settings, seed=1)
    nothing = matrix(0, 0, 0)
    images = list(X=X, Y=y, blocks=list())
    validation = list(X=nothing, Y=nothing, blocks=list())
    while(FALSE){{}}
    [model, first, second, history] = loop::train(images, validation, list(), list(), list(), registry,
      recipe, H, W, batch_size, micro_batch, 0, FALSE)
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
