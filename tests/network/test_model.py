"""The class for people who have arrays, `ResNet`: its weights, what it infers, and what it refuses."""

import copy

import numpy as np
import pytest
import torch
from dml_runner import assert_close
from narrow import STEM, narrow_resnet
from reference import ResNet as Reference
from reference import arrays
from refusals import message
from small_models import CLASSES, MEAN, STD, random_images, reference_model, seeded_model
from torch.nn import functional

from sysds_resnet import ResNet
from sysds_resnet.images import IMAGENET_MEAN, IMAGENET_STD
from sysds_resnet.network.inference import softmax
from sysds_resnet.train import TrainSettings
from sysds_resnet.training.state import State


@pytest.fixture(scope="module")
def reference():
    return narrow_resnet(18, CLASSES)


@pytest.fixture(scope="module")
def model(engine, reference):
    """The reference's weights; no test changes them."""
    return reference_model(engine, reference)


@pytest.fixture(scope="module")
def initial(engine):
    return seeded_model(engine)


@pytest.fixture
def fresh(initial):
    """A model for a test to change."""
    return copy.copy(initial)


@pytest.fixture(scope="module")
def images():
    return random_images(5, 32, 40)


@pytest.fixture(scope="module")
def expected(reference, images):
    """PyTorch's logits of these images, in FP64."""
    normalised = (images.astype(np.float64) - MEAN) / STD
    with torch.no_grad():
        return reference(torch.from_numpy(normalised.transpose(0, 3, 1, 2))).numpy()


def assert_same_weights(left, right):
    assert list(left) == list(right)
    for name in left:
        np.testing.assert_array_equal(left[name], right[name], err_msg=name)


# Weights


def test_state_dict_has_torchvisions_names_and_shapes(model, reference):
    ours = {name: array.shape for name, array in model.state_dict().items()}
    theirs = {name: tuple(tensor.shape) for name, tensor in reference.state_dict().items()}
    assert ours == {name: shape for name, shape in theirs.items() if not name.endswith("num_batches_tracked")}


def test_state_dict_gives_back_what_was_loaded_bit_for_bit(model, reference):
    given = arrays(reference)
    for name, array in model.state_dict().items():
        assert array.dtype == np.float64
        np.testing.assert_array_equal(array, given[name], err_msg=name)


def test_pytorch_loads_the_state_dict_and_gives_the_same_logits(fresh, images):
    other = Reference(18, 3, stem=STEM).double().eval()
    weights = {name: torch.from_numpy(array) for name, array in fresh.state_dict().items()}
    other.load_state_dict(weights, strict=True)
    normalised = (images.astype(np.float64) - IMAGENET_MEAN) / IMAGENET_STD
    with torch.no_grad():
        logits = other(torch.from_numpy(normalised.transpose(0, 3, 1, 2))).numpy()
    assert_close(fresh.logits(images), logits, 1e-9)


def test_the_same_seed_gives_the_same_weights(engine, initial):
    again = ResNet(18, num_classes=3, engine=engine, seed=1)
    assert_same_weights(again.state_dict(), initial.state_dict())


def test_another_seed_gives_other_weights_and_zero_init_residual_zeros(engine, initial):
    other = ResNet(18, num_classes=3, engine=engine, seed=2, zero_init_residual=True).state_dict()
    for name, array in initial.state_dict().items():
        if array.ndim > 1 or name == "fc.bias":
            assert (other[name] == array).mean() < 1e-3, name
        else:
            last = name.startswith("layer") and name.endswith("bn2.weight")
            np.testing.assert_array_equal(other[name], 0 * array if last else array, err_msg=name)


def test_save_and_load_are_exact_with_preprocessing_and_classes(engine, fresh, images, tmp_path):
    fresh.set_preprocessing(MEAN / 3, STD / 3, ["cat", "dog", "größe"])
    fresh.save(tmp_path / "w.safetensors")
    loaded = ResNet.load(tmp_path / "w.safetensors", engine)
    assert_same_weights(loaded.state_dict(), fresh.state_dict())
    np.testing.assert_array_equal(loaded.mean, fresh.mean)
    np.testing.assert_array_equal(loaded.std, fresh.std)
    assert loaded.classes == ["cat", "dog", "größe"]
    np.testing.assert_array_equal(loaded.logits(images), fresh.logits(images))
    (tmp_path / "w.safetensors").unlink()


# Inference


def test_logits_are_pytorchs(model, images, expected):
    assert_close(model.logits(images), expected, 1e-9)


@pytest.mark.parametrize("batch_size", [None, 2])
def test_features_are_pytorchs(model, reference, images, batch_size):
    normalised = torch.from_numpy(((images - MEAN) / STD).transpose(0, 3, 1, 2))
    with torch.no_grad():
        features = reference.features(normalised).numpy()
    assert_close(model.features(images, batch_size), features, 1e-9)
    weights = model.state_dict()
    logits = features @ weights["fc.weight"].T + weights["fc.bias"]
    assert_close(model.logits(images), logits, 1e-9)


def test_float_images_give_the_same_as_uint8(model, images):
    for dtype in (np.float32, np.float64):
        np.testing.assert_array_equal(model.logits(images.astype(dtype)), model.logits(images))


def test_a_partial_last_batch_gives_the_same_as_all_at_once(model, images):
    whole = model.logits(images, batch_size=5)
    for batch_size in (1, 2, 3, 64):
        assert_close(model.logits(images, batch_size), whole)


def test_probabilities_and_predictions_follow_from_the_logits(model, images, expected):
    probabilities = functional.softmax(torch.from_numpy(expected), dim=1).numpy()
    assert_close(model.predict_proba(images), probabilities, 1e-9)
    np.testing.assert_array_equal(model.predict(images), expected.argmax(axis=1))


def test_softmax_does_not_overflow():
    scores = np.array([[1e4, 1e4, -1e4], [-1e300, 0, 0]])
    np.testing.assert_allclose(softmax(scores), [[0.5, 0.5, 0], [0, 0.5, 0.5]])


@pytest.mark.parametrize("batch_size", [None, 2])
def test_evaluation_is_pytorchs(model, images, expected, batch_size):
    order = np.argsort(-expected, axis=1)
    labels = order[np.arange(5), [0, 4, 5, 0, 1]]  # two hits at once, four among the first five
    scores = model.evaluate(images, labels, batch_size)
    loss = functional.cross_entropy(torch.from_numpy(expected), torch.from_numpy(labels)).item()
    assert scores == {"loss": pytest.approx(loss, rel=1e-9), "top1": 0.4, "top5": 0.8}


def test_features_of_bottlenecks_and_of_images_that_were_sent_are_pytorchs(engine, images):
    reference = narrow_resnet(50, CLASSES)
    model = reference_model(engine, reference)
    normalised = torch.from_numpy(((images - MEAN) / STD).transpose(0, 3, 1, 2))
    with torch.no_grad():
        features = reference.features(normalised).numpy()
    assert features.shape == (5, 32 * STEM)
    assert_close(model.features(model.send(images, batch_size=3)), features, 1e-9)


def test_other_numbers_of_channels_need_no_mean(engine):
    reference = narrow_resnet(18, num_classes=2, channels=1)
    model = ResNet.from_state_dict(arrays(reference), engine)
    images = random_images(2, channels=1)
    with torch.no_grad():
        logits = reference(torch.from_numpy(images.astype(np.float64).transpose(0, 3, 1, 2))).numpy()
    assert_close(model.logits(images), logits, 1e-9)


# Errors


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda x, y: (x, np.array([0, 1, 2, CLASSES])), f"labels: found {CLASSES} at position 3, expected"),
        (lambda x, y: (x, np.array([0, -1, 2, 0])), "labels: found -1 at position 1, expected whole numbers"),
        (lambda x, y: (x, np.array([0, 0.5, 2, 0])), "labels: found 0.5 at position 1"),
        (lambda x, y: (x, np.array([0, np.nan, 2, 0])), "labels: found nan at position 1"),
        (lambda x, y: (x, y[:3]), "labels: found int64 of shape (3,), expected integers of shape (4,)"),
        (lambda x, y: (x, np.eye(4)), "labels: found float64 of shape (4, 4)"),
        (lambda x, y: (np.where(x == x[2, 0, 0, 0], np.nan, x), y), "images: found NaN or infinity in image"),
        (lambda x, y: (x + np.inf, y), "images: found NaN or infinity in image 0, expected finite values"),
        (lambda x, y: (x[0], y), "images: found shape (32, 32, 3), expected (N, H, W, 3)"),
        (lambda x, y: (x.transpose(0, 3, 1, 2), y), "images: found shape (4, 3, 32, 32), expected (N, H, W"),
        (lambda x, y: (x[:0], y[:0]), "images: found shape (0, 32, 32, 3)"),
        (lambda x, y: (x[:, :31], y), "image size: found 31 x 32 pixels, expected at least 32 x 32"),
    ],
)
def test_wrong_images_and_labels_are_named_and_change_nothing(model, change, found):
    images, labels = change(random_images(4), np.array([0, 1, 2, 0]))
    assert found in message(model.evaluate, images, labels)
    state = State(model, moments=())
    weights, optimizer = model.weights, TrainSettings(micro_batch=4).make_optimizer(steps_per_epoch=1)
    assert found in message(state.update, images, labels, optimizer)
    assert model.weights is weights and state.moments == () and state.progress.step == 0


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda w: w.pop("layer2.0.bn1.bias"), "layer2.0.bn1.bias is missing, expected shape (16,)"),
        (lambda w: w.update(extra=np.ones(1)), "'extra' is unexpected"),
        (lambda w: w.update({"fc.bias": np.ones(8)}), "fc.bias has shape (8,), expected (7,)"),
        (lambda w: w.update({"fc.bias": np.full(7, np.nan)}), "fc.bias has 7 NaN or infinite values"),
    ],
)
def test_weights_that_do_not_fit_are_named_and_change_nothing(model, change, found):
    wrong, weights = model.state_dict(), model.weights
    change(wrong)
    assert found in message(model.load_state_dict, wrong, "w.safetensors")
    assert model.weights is weights


def test_a_depth_that_no_table_has_is_named(engine):
    assert message(ResNet, 20, engine=engine).startswith("depth: found 20, expected 18, 34, 50, 101 or 152")


def test_one_class_is_not_enough(engine):
    found = message(ResNet, 18, num_classes=1, engine=engine)
    assert found == "num_classes: found 1, expected at least 2; there is nothing to tell apart"
