"""The estimator for scikit-learn: what it computes, and the forms of images and labels that it takes."""

import numpy as np
import pandas as pd
import pytest
import torch
from dml_runner import assert_close
from narrow import STEM
from reference import ResNet as Reference
from sklearn.base import clone
from striped_images import QUICK, same_weights, striped_images

import sysds_resnet.sklearn
from sysds_resnet import ResNet
from sysds_resnet.sklearn import ResNetClassifier
from sysds_resnet.train import TrainSettings


@pytest.fixture(autouse=True)
def shared(engine, monkeypatch):
    """Estimators use the session's engine."""
    monkeypatch.setattr(sysds_resnet.sklearn, "engine_of_process", lambda *_: engine)
    yield
    sysds_resnet.sklearn._last.clear()


@pytest.fixture(scope="module")
def fitted(engine):
    """An estimator that was fitted to twelve images; no test changes it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sysds_resnet.sklearn, "engine_of_process", lambda *_: engine)
        return ResNetClassifier(**QUICK).fit(*striped_images())


# What it computes


def test_a_fit_is_that_of_resnet_on_normalized_images(engine):
    images, labels = striped_images()
    changed = {**QUICK, "epochs": 2, "batch_size": 5, "class_weight": {0: 2, 1: 1, 2: 0.5}}
    classifier = ResNetClassifier(label_smoothing=0.1, **changed)
    classifier.fit(images, labels)
    mean, std = images.mean(axis=(0, 1, 2)), images.std(axis=(0, 1, 2))
    np.testing.assert_allclose([classifier.mean_, classifier.std_], [mean, std], rtol=1e-12)
    seed = np.random.RandomState(1).randint(2**31 - 1)
    model = ResNet(18, 3, seed=seed, engine=engine, mean=np.zeros(3), std=np.ones(3))
    settings = {"epochs": 2, "batch_size": 5, "warmup_epochs": 0}
    pixels = (images - classifier.mean_) / classifier.std_
    history = model.fit(pixels, labels, class_weights=[2, 1, 0.5], label_smoothing=0.1, seed=seed, **settings)
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(classifier.weights_[name], array, err_msg=name)
    assert classifier.history_["train_loss"].tolist() == history["train_loss"].tolist()
    np.testing.assert_array_equal(classifier.predict(images), model.predict(pixels))


def test_features_and_probabilities_are_pytorchs_with_its_weights():
    images, labels = striped_images(size=20)
    classifier = ResNetClassifier(image_size=40, **QUICK).fit(images, labels)
    reference = Reference(18, 3, stem=STEM).double().eval()
    weights = {name: torch.from_numpy(array) for name, array in classifier.weights_.items()}
    reference.load_state_dict(weights, strict=False)
    pixels = torch.from_numpy(images.astype(float).transpose(0, 3, 1, 2))
    pixels = torch.nn.functional.interpolate(pixels, (40, 40), mode="bilinear", antialias=True)
    mean, std = (torch.from_numpy(array)[:, None, None] for array in (classifier.mean_, classifier.std_))
    with torch.no_grad():
        features = reference.features((pixels - mean) / std)
        probabilities = torch.softmax(reference.fc(features), dim=1).numpy()
    assert features.shape == (12, len(classifier.get_feature_names_out()))
    assert_close(classifier.transform(images), features.numpy(), 1e-5)  # Pillow resizes in FP32
    assert_close(classifier.predict_proba(images), probabilities, 1e-4)


@pytest.mark.long
def test_it_learns_what_can_be_seen():
    images, labels = striped_images(48)
    names = np.array(["low", "middle", "high"])[labels]
    classifier = ResNetClassifier(
        epochs=8, batch_size=9, optimizer="sgd", base_lr=0.05, random_state=0, ema_decay=0.5
    )
    classifier.fit(images[:36], names[:36])
    assert classifier.score(images[36:], names[36:]) == 1
    assert classifier.predict_proba(images).argmax(axis=1).tolist() == [
        list(classifier.classes_).index(name) for name in classifier.predict(images)
    ]


@pytest.mark.long
@pytest.mark.usefixtures("wide")
def test_with_its_defaults_it_learns_handwritten_digits(wide_engine, monkeypatch):
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    monkeypatch.setattr(sysds_resnet.sklearn, "engine_of_process", lambda *_: wide_engine)
    digits = load_digits()
    for images in (digits.images, digits.data):
        parts = train_test_split(images, digits.target, random_state=0, stratify=digits.target)
        classifier = ResNetClassifier(random_state=0).fit(parts[0], parts[2])
        assert classifier.score(parts[1], parts[3]) > 0.95


@pytest.mark.long
def test_weights_of_classes_by_label_and_by_number_of_images():
    images, _ = striped_images()
    labels = np.array(list("aaaaaabbbbcc"))
    balanced, by_hand, plain, by_one = (
        ResNetClassifier(class_weight=weights, **QUICK).fit(images, labels)
        for weights in ("balanced", {"a": 12 / 18, "b": 12 / 12, "c": 12 / 6}, None, {"a": 1})
    )
    assert same_weights(balanced, by_hand) and same_weights(plain, by_one)
    assert not same_weights(balanced, plain)


def test_a_seed_gives_the_same_weights_and_none_gives_others(fitted):
    images, labels = striped_images()
    assert same_weights(fitted, clone(fitted).fit(images, labels))
    others = clone(fitted).set_params(random_state=None)
    assert not same_weights(fitted, others.fit(images, labels))


def test_its_defaults_are_those_of_the_train_command():
    settings = TrainSettings()
    for name, value in ResNetClassifier().get_params().items():
        if name in TrainSettings.model_fields and name not in ("image_size", "heap"):
            assert getattr(settings, name) == value, name


# The forms that it takes


@pytest.mark.parametrize(
    "names",
    [
        ["cat", "dog", "größe"],
        [-1, 7, 1000],
        [2.0, 3.0, 5.0],
        np.array(["x", "y", "z"], dtype=object),
        [False, True],
    ],
    ids=str,
)
def test_labels_are_of_any_type(fitted, names):
    images, labels = striped_images(classes=len(names))
    given = np.asarray(names)[labels]
    classifier = ResNetClassifier(**QUICK).fit(images, given)
    assert classifier.classes_.tolist() == list(names) and classifier.classes_.dtype == given.dtype
    assert set(classifier.predict(images)) <= set(names)
    assert len(names) == 2 or same_weights(classifier, fitted)


@pytest.mark.long
def test_grey_images_and_rows_are_the_same_images():
    images, labels = striped_images(channels=1)
    rows = images.reshape(len(images), -1)
    classifier = ResNetClassifier(**QUICK).fit(images, labels)
    assert (classifier.image_shape_, classifier.n_features_in_) == ((32, 32, 1), 1024)
    expected = classifier.predict_proba(images)
    for form in (images[..., 0], images.tolist(), rows, pd.DataFrame(rows), torch.from_numpy(images)):
        np.testing.assert_array_equal(classifier.predict_proba(form), expected)
    for form in (images[..., 0], rows):
        assert same_weights(classifier, ResNetClassifier(**QUICK).fit(form, labels.tolist()))


def test_rows_of_images_that_are_not_square_need_a_shape():
    images, labels = striped_images()
    images = images[:, :, :20]
    rows = images.reshape(12, -1)
    classifier = ResNetClassifier(**QUICK).fit(images, labels)
    assert (classifier.image_shape_, classifier.image_size_) == ((32, 20, 3), (32, 32))
    with_shape = ResNetClassifier(image_shape=(-1, 20, 3), **QUICK).fit(rows, labels)
    assert same_weights(classifier, with_shape)
    np.testing.assert_array_equal(with_shape.transform(images), classifier.transform(rows))


@pytest.mark.parametrize(
    "scale", [lambda X: X / 255, lambda X: X.astype(np.float32) - 500, lambda X: X.astype(int) * 1000]
)
def test_the_scale_of_the_images_does_not_matter(fitted, scale):
    images, labels = striped_images()
    scaled = scale(images)
    classifier = ResNetClassifier(**QUICK).fit(scaled, labels)
    assert_close(classifier.predict_proba(scaled), fitted.predict_proba(images), 1e-6)


def test_images_are_scored_some_at_a_time_as_they_are_all_at_once(fitted, monkeypatch):
    images, _ = striped_images()
    whole = [fitted.transform(images), fitted.predict_proba(images)]
    monkeypatch.setattr(sysds_resnet.sklearn, "AT_A_TIME", 7)
    parts = [fitted.transform(images), fitted.predict_proba(images)]
    for found, expected in zip(parts, whole, strict=True):
        assert_close(found, expected)
