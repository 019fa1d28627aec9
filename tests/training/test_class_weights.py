"""Weights of classes, and as many images of each, for data sets whose classes are uneven."""

import numpy as np
import pytest
from command_line import assert_one_line_error, run_here
from sklearn.utils.class_weight import compute_class_weight

from sysds_resnet.errors import UserError
from sysds_resnet.images import ArrayDataset
from sysds_resnet.report.metrics import read_metrics
from sysds_resnet.training.class_weights import class_weights

CLASSES = ["ant", "bee", "cat"]


def dataset(labels):
    images = np.zeros((len(labels), 32, 32, 3), np.uint8)
    return ArrayDataset(images, np.array(labels), CLASSES, mean=np.zeros(3), std=np.ones(3))


def test_balanced_weights_are_those_of_scikit_learn():
    labels = [0] * 7 + [1] * 2 + [2]
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    np.testing.assert_allclose(class_weights("balanced", dataset(labels)), expected, rtol=1e-15)


def test_a_class_without_images_does_not_count():
    labels = [0, 0, 0, 2]
    expected = compute_class_weight("balanced", classes=np.array([0, 2]), y=labels)
    found = class_weights("balanced", dataset(labels))
    np.testing.assert_allclose([found[0], found[2]], expected, rtol=1e-15)
    assert np.isfinite(found[1])


def test_a_file_has_a_weight_for_each_name(tmp_path):
    path = tmp_path / "weights.yaml"
    path.write_text("cat: 3\nant: 0.5\nbee: 0\n")
    assert class_weights(str(path), dataset([0, 1, 2])) == (0.5, 0.0, 3.0)
    assert class_weights(None, dataset([0, 1, 2])) == ()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("ant: 1\nbee: 1\n", "found no weight for cat, expected one for each class"),
        ("ant: 1\nbee: 1\ncat: 1\ncow: 1\n", "found a weight for cow, expected classes of the data set"),
        ("ant: 1\nbee: 1\ncat: -1\n", "found the weight -1 for cat, expected a finite number"),
        ("ant: 1\nbee: true\ncat: 1\n", "found the weight True for bee"),
        ("ant: 1\nbee: .inf\ncat: 1\n", "found the weight inf for bee"),
        ("ant: 1\nbee: much\ncat: 1\n", "found the weight much for bee"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(tmp_path, text, found):
    path = tmp_path / "weights.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=found):
        class_weights(str(path), dataset([0, 1, 2]))


@pytest.fixture
def uneven(tmp_path):
    """A data set of 8 images of one class and 2 of another."""
    rng = np.random.default_rng(0)
    for split, labels in (("train", [0] * 8 + [1] * 2), ("val", [0, 1])):
        (tmp_path / "data").mkdir(exist_ok=True)
        images = rng.integers(0, 256, (len(labels), 32, 32, 3), dtype=np.uint8)
        np.save(tmp_path / "data" / f"{split}_images.npy", images)
        np.save(tmp_path / "data" / f"{split}_labels.npy", np.array(labels))
    return tmp_path / "data"


RUN = [
    "--model",
    "resnet18",
    "--batch-size",
    "5",
    "--base-lr",
    "0.1",
    "--warmup-epochs",
    "0",
    "--workers",
    "1",
]


@pytest.mark.long
@pytest.mark.parametrize(
    "given",
    [("--class-weights", "balanced"), ("--sampling", "balanced")],
    ids=str,
)
def test_a_run_with_weights_or_balance_goes_on_with_the_same(shared, capfd, folder, uneven, given):
    """They count: the loss of the first step is another one than that of a run without."""
    losses = {}
    for name, flags in {"plain": [], "given": given}.items():
        outcome = run_here(
            capfd, "train", "--dataset", uneven, *RUN, *flags, "--epochs", "1", "--out", folder / name
        )
        assert outcome.code == 0, outcome
        losses[name] = read_metrics(folder / name, "step")["loss"].tolist()
    assert losses["plain"][0] != losses["given"][0]
    outcome = run_here(capfd, "train", "--resume", folder / "given", "--epochs", "2")
    assert outcome.code == 0, outcome
    other = {"--class-weights": ("--sampling", "balanced"), "--sampling": ("--class-weights", "balanced")}
    outcome = run_here(capfd, "train", "--resume", folder / "given", *other[given[0]])
    name = other[given[0]][0].removeprefix("--").replace("-", "_")
    assert_one_line_error(outcome, f"{name}: found balanced, expected ")


@pytest.mark.long
def test_weights_from_a_file_that_changed_are_refused(shared, capfd, folder, uneven):
    path = folder / "weights.yaml"
    path.write_text("'0': 1\n'1': 4\n")
    flags = ["--dataset", uneven, *RUN, "--class-weights", path, "--epochs", "1", "--out", folder / "run"]
    outcome = run_here(capfd, "train", *flags)
    assert outcome.code == 0, outcome
    path.write_text("'0': 1\n'1': 3\n")
    outcome = run_here(capfd, "train", "--resume", folder / "run", "--epochs", "2")
    assert_one_line_error(outcome, "class weights: found [1.0, 3.0], expected [1.0, 4.0] as in")


def test_weights_and_mixing_are_refused_together(capfd, tmp_path):
    flags = ["--class-weights", "balanced", "--mixup", "0.2", "--out", tmp_path / "run"]
    assert_one_line_error(run_here(capfd, "train", *flags), "class_weights: found them with mixup or cutmix")
    assert not (tmp_path / "run").exists()
