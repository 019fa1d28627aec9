"""The estimator in scikit-learn's pipelines and searches: its engine, its matrices, and its pickles."""

import gc
import json
import pickle
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from narrow import STEM
from py4j.finalizer import ThreadSafeFinalizer
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from striped_images import QUICK, striped_images

import sysds_resnet.sklearn
from sysds_resnet.engine import of_process
from sysds_resnet.sklearn import ResNetClassifier


@pytest.fixture(autouse=True)
def shared(engine, monkeypatch):
    """Estimators use the session's engine."""
    monkeypatch.setattr(sysds_resnet.sklearn, "engine_of_process", lambda *_: engine)
    yield
    sysds_resnet.sklearn._last.clear()


def test_pipelines_take_it_as_their_last_step_and_before_another_classifier():
    images, labels = striped_images(30)
    last = make_pipeline(FunctionTransformer(lambda X: X[:, ::-1]), ResNetClassifier(**QUICK))
    assert last.fit(images, labels).predict(images).shape == (30,)
    rows = images.reshape(30, -1)
    classifier = ResNetClassifier(image_shape=(32, 32, 3), **QUICK)
    before = make_pipeline(StandardScaler(), classifier, LogisticRegression()).fit(rows, labels)
    assert before.score(rows, labels) > 0.9
    assert len(before[:-1].get_feature_names_out()) == 8 * STEM
    table = clone(classifier).set_output(transform="pandas").fit(rows, labels).transform(rows)
    assert table.columns[-1] == f"resnetclassifier{8 * STEM - 1}"


@pytest.mark.long
def test_validation_and_search_use_one_engine_and_leave_no_matrices(engine, monkeypatch):
    """With the engine of the process, as users have it, except that it is one of the tests."""
    opened = []

    monkeypatch.setattr(of_process, "_engines", {})
    monkeypatch.setattr(of_process, "Engine", lambda *options, **_: opened.append(options) or engine)
    monkeypatch.setattr(sysds_resnet.sklearn, "engine_of_process", of_process.engine_of_process)
    images, labels = striped_images(12)
    classifier, held = ResNetClassifier(**{**QUICK, "batch_size": 4}), []
    for _ in range(2):
        scores = cross_val_score(classifier, images, labels, cv=2)
        assert scores.shape == (2,) and np.isfinite(scores).all()
        gc.collect()
        held.append(len(ThreadSafeFinalizer.finalizers))  # one for each object in a JVM
    assert held[0] == held[1] and len(opened) == 1
    search = GridSearchCV(classifier, {"base_lr": np.array([0.5, 1.0]), "batch_size": np.array([3, 6])}, cv=2)
    search.fit(images, labels)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.predict(images).shape == (12,) and len(opened) == 1
    del search
    gc.collect()
    assert len(ThreadSafeFinalizer.finalizers) <= held[0]


@pytest.mark.long
def test_a_model_is_in_the_engine_only_while_it_is_the_last_that_was_used():
    images, labels = striped_images(8)
    first, second = (ResNetClassifier(**{**QUICK, "random_state": i}).fit(images, labels) for i in (1, 2))
    last = sysds_resnet.sklearn._last
    expected = first.predict_proba(images), second.predict_proba(images)
    assert list(last) == [second]
    for _ in range(2):
        np.testing.assert_array_equal(first.predict_proba(images), expected[0])
        assert list(last) == [first]
        np.testing.assert_array_equal(second.predict_proba(images), expected[1])
    del second
    gc.collect()
    assert len(last) == 0


def test_a_pickled_estimator_has_no_part_of_the_engine_and_scores_as_before():
    images, labels = striped_images(8)
    classifier = ResNetClassifier(**QUICK).fit(images, labels)
    expected = classifier.predict_proba(images)
    again = pickle.loads(pickle.dumps(classifier))  # noqa: S301
    assert not any("py4j" in type(value).__module__ for value in vars(again).values())
    np.testing.assert_array_equal(again.predict_proba(images), expected)


@pytest.mark.long
def test_processes_of_a_search_have_an_engine_each(narrow_package, tmp_path):
    """In a process of its own, which also loads an estimator that was fitted here and ends its JVM."""
    images, labels = striped_images(12)
    classifier = ResNetClassifier(heap="512m", **{**QUICK, "batch_size": 4}).fit(images, labels)
    expected = classifier.predict_proba(images)
    (tmp_path / "fitted").write_bytes(pickle.dumps((classifier, images, labels)))
    search = GridSearchCV(clone(classifier), {"base_lr": [0.5, 1.0]}, cv=2)
    program = f"""
        import json, pickle, psutil
        from sklearn.model_selection import GridSearchCV
        with open({str(tmp_path / "fitted")!r}, "rb") as file:
            classifier, images, labels = pickle.load(file)
        found = classifier.predict_proba(images)
        search = GridSearchCV(classifier, {{"base_lr": [0.5, 1.0]}}, cv=2, n_jobs=2).fit(images, labels)
        jvms = [p for p in psutil.Process().children(recursive=True) if "java" in p.name()]
        own = [p.pid for p in psutil.Process().children() if "java" in p.name()]
        scores = search.cv_results_["mean_test_score"]
        print(json.dumps([found.tolist(), scores.tolist(), len(jvms), own]))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], cwd=narrow_package, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found, scores, jvms, own = json.loads(done.stdout)
    np.testing.assert_array_equal(found, expected)
    assert scores == search.fit(images, labels).cv_results_["mean_test_score"].tolist()
    assert len(own) == 1 and 1 < jvms <= 3  # this one's, and those of two workers


def test_a_line_is_printed_after_each_epoch_if_asked_for(capsys):
    images, labels = striped_images(8)
    ResNetClassifier(**QUICK).fit(images, labels)
    assert capsys.readouterr().out == ""
    ResNetClassifier(verbose=True, **{**QUICK, "epochs": 2}).fit(images, labels)
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition("  ")[0] for line in lines] == ["epoch 1/2", "epoch 2/2"]
