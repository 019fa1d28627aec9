"""Evaluation: scores by class and the confusion matrix against scikit-learn, ensembles against PyTorch."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from command_line import assert_one_line_error, run_here
from narrow import narrow_resnet
from PIL import Image
from reference import arrays
from scoring_reference import CLASSES, probabilities, write_images, write_networks
from sklearn import metrics

from sysds_resnet.errors import UserError
from sysds_resnet.evaluate import warn_of_training_images
from sysds_resnet.network.weights.files import describe, write_weights
from sysds_resnet.scoring.ensemble import Ensemble
from sysds_resnet.scoring.labelled import check_classes
from sysds_resnet.scoring.outcomes import Outcomes, draw_confusion, write_report
from sysds_resnet.scoring.settings import EvaluateSettings
from sysds_resnet.settings.command_line import build

FILES = ["classes.csv", "confusion.csv", "confusion.png", "scores.json"]


def outcomes_of(labels, scores, classes):
    """Taken in batches of four."""
    found = Outcomes(classes)
    for i in range(0, len(labels), 4):
        found.add(labels[i : i + 4], scores[i : i + 4])
    return found


@pytest.fixture
def random():
    """Labels of 50 images in seven classes, the last of which has none, and scores."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 6, 50)
    return labels, rng.normal(size=(50, 7)) + 1.5 * np.eye(7)[labels]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# Scores


def test_scores_are_scikit_learns(random):
    labels, scores = random
    found = outcomes_of(labels, scores, CLASSES).scores()
    probability = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    assert found == {
        "images": 50,
        "loss": pytest.approx(metrics.log_loss(labels, probability, labels=range(7)), rel=1e-12),
        "top1": metrics.top_k_accuracy_score(labels, scores, k=1, labels=range(7)),
        "top5": metrics.top_k_accuracy_score(labels, scores, k=5, labels=range(7)),
    }


def test_scores_by_class_and_the_matrix_are_scikit_learns(random):
    labels, scores = random
    found = outcomes_of(labels, scores, CLASSES)
    expected = metrics.confusion_matrix(labels, scores.argmax(axis=1), labels=range(7))
    np.testing.assert_array_equal(found.confusion(), expected)
    table = found.by_class()
    assert table["class"].tolist() == CLASSES
    np.testing.assert_array_equal(table["images"], np.bincount(labels, minlength=7))
    for k, row in table.iloc[:6].iterrows():
        own = labels == k
        assert row["top1"] == pytest.approx(expected[k, k] / own.sum())
        hits = metrics.top_k_accuracy_score(labels[own], scores[own], k=5, labels=range(7))
        assert row["top5"] == pytest.approx(hits)
        wrong = np.where(np.arange(7) == k, 0, expected[k])
        assert row["mistakes"] == wrong.max()
        assert row["mistaken_for"] == CLASSES[wrong.argmax()] if wrong.any() else pd.isna(row["mistaken_for"])
    last = table.iloc[6]
    assert np.isnan([last["top1"], last["top5"]]).all() and last["mistakes"] == 0
    assert pd.isna(last["mistaken_for"])


def test_of_equal_scores_the_first_class_is_taken():
    found = outcomes_of(np.array([0, 1, 5, 6]), np.zeros((4, 7)), CLASSES)
    assert (found.scores()["top1"], found.scores()["top5"]) == (0.25, 0.5)
    assert found.scores()["loss"] == pytest.approx(np.log(7))
    np.testing.assert_array_equal(found.confusion()[:, 0], [1, 1, 0, 0, 0, 1, 1])


def test_with_fewer_than_five_classes_all_are_among_the_five():
    found = outcomes_of(np.array([0, 1, 2]), np.eye(3)[[1, 1, 1]], ["a", "b", "c"])
    assert found.scores()["top5"] == 1 and found.scores()["top1"] == pytest.approx(1 / 3)


def test_the_loss_of_a_class_that_is_all_but_impossible_is_finite():
    found = outcomes_of(np.array([1]), np.array([[0.0, -1e5]]), ["a", "b"])
    assert found.scores()["loss"] == 1e5


# Files


def test_the_report_is_read_back_by_others(random, folder):
    labels, scores = random
    classes = ["a, b", 'say "cat"', "ß", "$x^2$", "_", "long " * 20, "0"]
    write_report(folder / "new" / "report", outcomes_of(labels, scores, classes), {"weights": ["w"]})
    report = folder / "new" / "report"
    assert names(report) == FILES
    assert json.loads((report / "scores.json").read_text())["weights"] == ["w"]
    matrix = pd.read_csv(report / "confusion.csv", index_col="class")
    assert matrix.columns.tolist() == matrix.index.astype(str).tolist() == classes
    expected = metrics.confusion_matrix(labels, scores.argmax(axis=1), labels=range(7))
    np.testing.assert_array_equal(matrix, expected)
    table = pd.read_csv(report / "classes.csv")
    assert table.columns.tolist() == ["class", "images", "top1", "top5", "mistaken_for", "mistakes"]
    assert table["class"].tolist() == classes
    with Image.open(report / "confusion.png") as image:
        assert image.format == "PNG"


def test_a_picture_of_a_thousand_classes_shows_a_single_pair(folder):
    pictures = []
    for wrong in (0, 50):
        matrix = 50 * np.eye(1000, dtype=int)
        matrix[123, 877] = wrong
        draw_confusion(matrix, [f"class {i}" for i in range(1000)], folder / "confusion.png")
        with Image.open(folder / "confusion.png") as image:
            pictures.append(np.asarray(image.convert("L"), int))
    darker = pictures[0] - pictures[1] > 60
    matrix_width = int(0.6 * darker.shape[1])  # beside it stands the pair's name
    rows, columns = np.nonzero(darker[:, :matrix_width])
    assert rows.size and np.ptp(rows) < 15 and np.ptp(columns) < 15
    assert darker[:, matrix_width:].sum() > 50


# The command


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("networks")
    yield folder / "18.safetensors", write_networks(folder, 18)
    (folder / "18.safetensors").unlink()


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    return folder, write_images(folder, 7)


@pytest.mark.usefixtures("shared")
def test_scores_are_of_the_probabilities_averaged_over_views(networks, images, folder, capfd):
    weights, models = networks
    root, paths = images
    outcome = run_here(
        capfd, "evaluate", "--weights", weights, "--dataset", root, "--tta", "ten",
        "--out", folder / "report", "--workers", 1,
    )  # fmt: skip
    assert (outcome.code, outcome.err) == (0, "")
    probability = probabilities(models, paths, "ten")
    labels = np.array([CLASSES.index(path.parent.name) for path in paths])
    scores = json.loads((folder / "report" / "scores.json").read_text())
    assert scores == {
        "images": 7,
        "loss": pytest.approx(metrics.log_loss(labels, probability, labels=range(7)), rel=1e-9),
        "top1": pytest.approx(metrics.top_k_accuracy_score(labels, probability, k=1, labels=range(7))),
        "top5": pytest.approx(metrics.top_k_accuracy_score(labels, probability, k=5, labels=range(7))),
        "left_out": 0,
        "weights": [str(weights)],
        "dataset": str(root),
        "image_size": 32,
        "resize_size": 38,
        "tta": "ten",
        "scales": [1.0],
        "precision": "double",
    }
    assert outcome.out.startswith(f"7 images: loss {scores['loss']:.4f}, top-1 {100 * scores['top1']:.2f} %")
    assert names(folder / "report") == FILES
    matrix = pd.read_csv(folder / "report" / "confusion.csv", index_col="class")
    assert matrix.columns.tolist() == CLASSES
    expected = metrics.confusion_matrix(labels, probability.argmax(axis=1), labels=range(7))
    np.testing.assert_array_equal(matrix, expected)


@pytest.mark.usefixtures("shared")
def test_classes_in_another_order_are_refused(images, folder, capfd):
    root, _ = images
    other = [*CLASSES[:2], *reversed(CLASSES[2:])]
    write_weights(
        folder / "w.safetensors", arrays(narrow_resnet(18, 7)), metadata=describe({"classes": other})
    )
    outcome = run_here(capfd, "evaluate", "--weights", folder / "w.safetensors", "--dataset", root)
    assert_one_line_error(outcome, f"{root}: found 'cat' for class 2, expected 'gnu' as in", "w.safetensors")


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (
            ["green", "red", "yellow"],
            "'green' for class 0, expected 'blue' as in w, where 'green' is class 1",
        ),
        (["Blue", "green", "red"], "'Blue' for class 0, expected 'blue', which is class 0 in w; only case"),
        (["Green", "Red", "blue"], "'blue' for class 2, expected 'red' as in w, where 'blue' is class 0"),
    ],
)
def test_names_that_stand_for_other_classes_are_refused(names, found):
    dataset = SimpleNamespace(num_classes=3, classes=names)
    settings = SimpleNamespace(dataset="data", weights=["w"])
    with pytest.raises(UserError, match=f"^data: found {found}"):
        check_classes(dataset, ["blue", "green", "red"], settings)


def test_synsets_stand_for_words_and_a_note_says_so(capsys):
    dataset = SimpleNamespace(num_classes=2, classes=["n01440764", "n01443537"])
    settings = SimpleNamespace(dataset="data", weights=["w"])
    check_classes(dataset, ["tench", "goldfish"], settings)
    said = capsys.readouterr().err
    assert (
        said.startswith("note: data: class 0 is 'n01440764' there and 'tench' in w") and said.count("\n") == 1
    )
    check_classes(dataset, 2, settings)
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("shared")
def test_networks_for_images_of_other_sizes_are_refused_until_a_flag_decides(networks, images, folder, capfd):
    weights, _ = networks
    root, _ = images
    path = folder / "w.safetensors"
    for beside, found in (({"image_size": [64, 64]}, "64 pixels"), ({}, "an unknown size")):
        write_weights(path, arrays(narrow_resnet(18, 7)), metadata=describe(beside))
        outcome = run_here(capfd, "evaluate", "--weights", weights, path, "--dataset", root)
        expected = f"{path}: found images of {found}, expected 32 pixels cropped from 38 as in {weights}"
        assert_one_line_error(outcome, expected)
    flags = ["--image-size", "32", "--out", folder / "report"]
    outcome = run_here(capfd, "evaluate", "--weights", weights, path, "--dataset", root, *flags)
    assert (outcome.code, outcome.err) == (0, "")
    scores = json.loads((folder / "report" / "scores.json").read_text())
    assert (scores["image_size"], scores["resize_size"]) == (32, 37)


@pytest.mark.parametrize(
    ("classes", "found"),
    [
        ([7 * [None], 6 * [None]], "b: found 6 classes, expected 7 as in a"),
        (
            [7 * [None], CLASSES, ["ant", "bear", *CLASSES[2:]]],
            "c: found 'bear' for class 1, expected 'bee' as in b",
        ),
    ],
)
def test_networks_for_other_classes_are_refused(classes, found):
    models = [
        SimpleNamespace(network=SimpleNamespace(num_classes=len(names)), classes=names if names[0] else None)
        for names in classes
    ]
    with pytest.raises(UserError, match=f"^{found}; give networks for the same classes"):
        Ensemble(models, list("abc"[: len(models)]))
    assert Ensemble(models[:1] + models[:1], ["a", "a"]).classes is None


def test_a_file_in_the_place_of_the_folder_is_refused(folder, capfd):
    (folder / "scores.json").touch()
    outcome = run_here(capfd, "evaluate", "--weights", "w", "--out", folder / "scores.json")
    assert_one_line_error(outcome, f"{folder / 'scores.json'}: found a file, expected a folder or nothing")


@pytest.mark.parametrize(
    ("flags", "found"),
    [
        (["--tta", "six"], "tta: found six"),
        (["--scales", "0.1"], "scales: found 0.1"),
        (["--scales", "one"], "scales: found one"),
    ],
)
def test_views_that_there_are_not_are_refused(capfd, flags, found):
    assert_one_line_error(run_here(capfd, "evaluate", "--weights", "w", *flags), found)


@pytest.mark.parametrize(
    ("dataset", "given", "warned"),
    [
        ("{}/images", {}, True),
        ("{}/images", {"val_split": 0.2, "split_seed": 3}, True),
        ("{}/images", {"val_split": 0.1, "split_seed": 3}, False),
        ("{}/others", {}, False),
    ],
)
def test_images_that_weights_were_trained_on_are_warned_of(tmp_path, capfd, dataset, given, warned):
    run = tmp_path / "run"
    run.mkdir()
    (run / "metrics.jsonl").touch()
    (run / "config.yaml").write_text(
        f"dataset: {tmp_path}/images\nval_split: 0.1\nsplit_seed: 3\nof_a_newer_version: 1\n"
    )
    values = {"dataset": dataset.format(tmp_path), "weights": ["w"], **given}
    warn_of_training_images(build(EvaluateSettings, values), str(run))
    expected = (
        f"warning: {tmp_path}/images: found images here that {run} was trained on, expected others for "
        "scores that say something; add --val-split 0.1 --split-seed 3, as in its training, to score the "
        "rest alone\n"
    )
    assert capfd.readouterr().err == (expected if warned else "")
