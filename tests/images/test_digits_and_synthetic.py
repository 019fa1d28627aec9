"""The data sets digits and synthetic: their pixels, splits and classes, and the options that they refuse."""

import numpy as np
import pytest
from refusals import one_line

from sysds_resnet.errors import UserError
from sysds_resnet.images import Augmentation, open_dataset

# --- digits ---


def test_digits_split_is_stratified_and_disjoint_and_complete():
    from sklearn.datasets import load_digits

    train, val = open_dataset("digits", "train"), open_dataset("digits", "val")
    assert (len(train), len(val)) == (1437, 360)
    data = load_digits()
    share = np.bincount(data.target) * 360 / 1797
    assert np.abs(np.bincount(val.labels) - share).max() < 1
    # No two digits of the set have the same pixels, so images identify samples.
    known = {image.tobytes(): label for image, label in zip(data.images, data.target, strict=True)}
    assert len(known) == 1797
    seen = []
    for part in (train, val):
        for i in range(len(part)):
            original = np.rint(part.image(i, 0)[::4, ::4, 0] * (16 / 255))
            assert known[original.tobytes()] == part.labels[i]
            seen.append(original.tobytes())
    assert len(set(seen)) == 1797


def test_digits_pixels_are_repeated_four_times_in_three_equal_channels():
    data = open_dataset("digits", "val")
    image = data.image(5, 0)
    assert image.shape == (32, 32, 3) and image.dtype == np.uint8
    np.testing.assert_array_equal(image, np.kron(image[::4, ::4, 0], np.ones((4, 4)))[..., None] * np.ones(3))
    assert max(data.image(i, 0).max() for i in range(len(data))) == 255


def test_digits_split_does_not_depend_on_the_seed():
    first, second = (open_dataset("digits", "val", seed=seed) for seed in (0, 1))
    assert all(np.array_equal(first.image(i, 0), second.image(i, 0)) for i in range(360))


def test_digits_are_normalised_by_the_training_pixels_in_both_splits():
    train, val = open_dataset("digits", "train"), open_dataset("digits", "val")
    pixels = np.stack([train.image(i, 0) for i in range(len(train))]).astype(np.float64)
    for data in (train, val):
        np.testing.assert_allclose(data.mean, pixels.mean(axis=(0, 1, 2)), rtol=1e-9)
        np.testing.assert_allclose(data.std, pixels.std(axis=(0, 1, 2)), rtol=1e-9)


def test_digits_take_multiples_of_eight_only():
    assert open_dataset("digits", "val", image_size=64).image(0, 0).shape == (64, 64, 3)
    with pytest.raises(UserError) as error:
        open_dataset("digits", "val", image_size=50)
    assert "50" in one_line(error)


# --- synthetic ---


def test_synthetic_images_depend_on_seed_split_and_index_only():
    a, b = (open_dataset("synthetic", "train", image_size=24, seed=3) for _ in range(2))
    other_seed = open_dataset("synthetic", "train", image_size=24, seed=4)
    val = open_dataset("synthetic", "val", image_size=24, seed=3)
    assert (len(a), len(val), a.num_classes) == (256, 64, 10)
    assert np.array_equal(a.image(7, 0), b.image(7, 5))
    assert not np.array_equal(a.image(7, 0), a.image(17, 0))
    assert not np.array_equal(a.image(7, 0), other_seed.image(7, 0))
    assert not np.array_equal(a.image(7, 0), val.image(7, 0))


def test_synthetic_classes_can_be_learned():
    train = open_dataset("synthetic", "train")
    val = open_dataset("synthetic", "val")
    x, v = (np.stack([d.image(i, 0) for i in range(len(d))]).mean(axis=(1, 2)) for d in (train, val))
    nearest = train.labels[((v[:, None] - x[None]) ** 2).sum(axis=2).argmin(axis=1)]
    assert (nearest == val.labels).mean() > 0.9


def test_synthetic_classes_are_balanced_and_many_classes_work():
    data = open_dataset("synthetic", "train", num_images=2000, num_classes=1000)
    assert np.all(np.bincount(data.labels) == 2)
    assert len(set(data.classes)) == 1000
    assert data.image(1999, 0).dtype == np.uint8


# --- what users get wrong ---


@pytest.mark.parametrize(
    "spec, options",
    [
        ("synthetic", {"image_size": 0}),
        ("synthetic", {"seed": -1}),
        ("synthetic", {"num_images": 0}),
        ("synthetic", {"num_classes": 0}),
        ("synthetic", {"augmentation": Augmentation(flip=0)}),
        ("digits", {"augmentation": Augmentation(erasing=0.1)}),
        ("digits", {"resize_size": 40}),
        ("digits", {"layout": "folders"}),
        ("digits", {"num_classes": 5}),
        ("digits", {"split": "test"}),
    ],
)
def test_wrong_options_are_one_line_errors(spec, options):
    with pytest.raises(UserError) as error:
        open_dataset(spec, **{"split": "train", **options})
    one_line(error)
