"""Scikit-learn's own checks of estimators, on rows of few values, which are taken for images of one line.

None of them is expected to fail.
"""

import pytest
from sklearn.utils.estimator_checks import estimator_checks_generator

import sysds_resnet.sklearn
from sysds_resnet.sklearn import ResNetClassifier

LINES = ResNetClassifier(
    epochs=1,
    batch_size=16,
    optimizer="sgd",
    base_lr=0.05,
    warmup_epochs=0,
    image_shape=(1, -1),
    image_size=32,
    precision="double",
)
# Those that fit many times, or many images; they run with -m long.
MANY_FITS = {
    "check_dict_unchanged",
    "check_dtype_object",
    "check_estimators_nan_inf",
    "check_fit_check_is_fitted",
    "check_methods_sample_order_invariance",
    "check_methods_subset_invariance",
    "check_n_features_in",
    "check_supervised_y_2d",
    "check_transformer_preserve_dtypes",
    "check_class_weight_classifiers",
    "check_classifier_data_not_an_array",
    "check_classifiers_classes",
    "check_classifiers_train",
    "check_estimators_dtypes",
    "check_estimators_pickle",
    "check_fit_idempotent",
    "check_fit_score_takes_y",
    "check_pipeline_consistency",
    "check_positive_only_tag_during_fit",
    "check_transformer_data_not_an_array",
    "check_transformer_general",
}


@pytest.fixture(autouse=True)
def shared(engine, monkeypatch):
    """Estimators use the session's engine."""
    monkeypatch.setattr(sysds_resnet.sklearn, "engine_of_process", lambda *_: engine)
    yield
    sysds_resnet.sklearn._last.clear()


def checks():
    for estimator, check in estimator_checks_generator(LINES):
        name = check.func.__name__
        marks = [pytest.mark.long] if name in MANY_FITS else []
        yield pytest.param(estimator, check, id=f"{name}{check.keywords or ''}", marks=marks)


@pytest.mark.parametrize(("estimator", "check"), checks())
def test_scikit_learns_check(estimator, check):
    check(estimator)


def test_checks_of_classifiers_and_of_transformers_are_among_them():
    names = {param.values[1].func.__name__ for param in checks()}
    assert names > MANY_FITS and len(names) > 50
