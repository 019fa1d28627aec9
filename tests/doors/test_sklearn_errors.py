"""The errors of the estimator for scikit-learn: one line each, and a ValueError where it expects one."""

import subprocess
import sys

import numpy as np
import pytest
from refusals import message
from sklearn.exceptions import NotFittedError
from striped_images import QUICK, striped_images

import sysds_resnet.sklearn
from sysds_resnet.sklearn import ResNetClassifier
from sysds_resnet.system.command_lines import install_command


@pytest.fixture(autouse=True)
def shared(engine, monkeypatch):
    """Estimators use the session's engine."""
    monkeypatch.setattr(sysds_resnet.sklearn, "engine_of_process", lambda *_: engine)
    yield
    sysds_resnet.sklearn._last.clear()


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"depth": 20}, "depth: found 20, expected 18, 34, 50, 101 or 152"),
        ({"epochs": 0}, "epochs: found 0, expected greater than or equal to 1"),
        ({"batch_size": "many"}, "batch_size: found many, expected a valid integer"),
        ({"base_lr": -1.0}, "base_lr: found -1"),
        (
            {"optimizer": "adam"},
            "optimizer: found adam, expected 'lars', 'sgd', 'nesterov', 'adamw' or 'lamb'",
        ),
        ({"warmup_epochs": 3}, "warmup_epochs: found 3 with 1 epochs, expected at most as many"),
        ({"image_size": 16}, "image_size: found 16, expected a whole number of at least 32"),
        ({"image_shape": (5, 5)}, "image_shape: found (5, 5) for images of shape (32, 32, 3)"),
        ({"batch_size": 1}, "micro-batch: one image of this size leaves a single pixel"),
    ],
    ids=str,
)
def test_parameters_that_do_not_fit_are_one_line(change, found):
    images, labels = striped_images(8)
    assert found in message(ResNetClassifier(**{**QUICK, **change}).fit, images, labels)


def test_parameters_that_it_has_not_are_scikit_learns_own_error():
    with pytest.raises(TypeError, match="learning_rate"):
        ResNetClassifier(learning_rate=0.1)
    with pytest.raises(ValueError, match="Invalid parameter 'learning_rate' for estimator"):
        ResNetClassifier().set_params(learning_rate=0.1)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda X, y: (X, y[:-1]), "inconsistent numbers of samples"),
        (lambda X, y: (X, np.zeros(len(X))), "y: found one class, .* expected at least two"),
        (lambda X, y: (X, np.linspace(0, 1, len(X))), "Unknown label type"),
        (lambda X, y: (X[:, 0, 0, 0], y), "Expected 2D array, got 1D array instead"),
        (lambda X, y: (X[None], y), "Found array with dim 5"),
        (lambda X, y: (np.where(X > 200, np.nan, X), y), "Input X contains NaN"),
        (lambda X, y: (X[:, :5].reshape(len(X), -1), y), "X: found rows of 480 values, expected images, or"),
    ],
)
def test_data_that_do_not_fit_are_value_errors(change, found):
    with pytest.raises(ValueError, match=found):
        ResNetClassifier(**QUICK).fit(*change(*striped_images(8)))


def test_images_that_are_scored_are_those_of_the_fit():
    images, labels = striped_images(8)
    classifier = ResNetClassifier(**QUICK)
    with pytest.raises(NotFittedError):
        classifier.predict(images)
    with pytest.raises(ValueError, match="set image_shape"):
        classifier.fit(images[:, :5].reshape(len(images), -1), labels)
    with pytest.raises(NotFittedError):
        classifier.transform(images)
    classifier.fit(images, labels)
    with pytest.raises(ValueError, match="X has 1536 features, but ResNetClassifier is expecting 3072"):
        classifier.predict(images[:, :16])
    turned = images.reshape(8, 16, 64, 3)
    assert "X: found images of shape (16, 64, 3), expected (32, 32, 3), as in fit" in message(
        classifier.predict, turned
    )


def test_without_scikit_learn_one_line_says_how_to_get_it():
    program = "import sys\nsys.modules['sklearn.base'] = None\nimport sysds_resnet.sklearn"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("sysds_resnet.errors.UserError: scikit-learn: found ")
    assert last.endswith(f"run {install_command('sklearn')}") and "scikit-learn>=1.6" in last
