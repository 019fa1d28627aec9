"""Preprocessing and augmentation against torchvision's own code and by their distributions."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision_reference import functional, transforms

from sysds_resnet.imagenet import IMAGENET_MEAN
from sysds_resnet.images import Augmentation
from sysds_resnet.images.pixels.decode import Picture
from sysds_resnet.images.pixels.policies import (
    color_jitter,
    rand_augment,
    random_erasing,
    trivial_augment_wide,
)
from sysds_resnet.images.pixels.transforms import (
    Purpose,
    eval_transform,
    random_crop_box,
    sample_rng,
    train_transform,
)
from sysds_resnet.images.sources.photos import PHOTOS, open_photo


def picture(width, height, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, size=(height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


class ScriptedRng:
    """Gives the listed numbers by random()."""

    def __init__(self, *numbers):
        self.numbers = list(numbers)

    def random(self):
        return self.numbers.pop(0)


def as_picture(image):
    return Picture(np.asarray(image), "x")


# --- evaluation preprocessing ---


@pytest.mark.parametrize(
    "width, height",
    [(500, 375), (375, 500), (301, 299), (256, 256), (97, 211), (33, 31), (1, 1), (3, 120), (200, 7)],
)
@pytest.mark.parametrize(
    "size, resize_size", [(224, 256), (224, 232), (32, 37), (65, 65), (64, 41), (31, 30)]
)
def test_evaluation_preprocessing_is_torchvisions(width, height, size, resize_size):
    image = picture(width, height)
    found = eval_transform(as_picture(image), size, resize_size)
    expected = transforms.CenterCrop(size)(transforms.Resize(resize_size)(image))
    assert (found.dtype, found.shape) == (np.uint8, (size, size, 3))
    assert np.abs(np.asarray(expected, int) - found).max() <= 1


def test_shorter_side_before_the_crop_keeps_the_proportion_of_256_to_224():
    image = as_picture(picture(300, 200))
    for size, resize_size in ((224, 256), (32, 37), (176, 201)):
        np.testing.assert_array_equal(eval_transform(image, size), eval_transform(image, size, resize_size))


def test_centre_crop_pads_a_smaller_image_with_black_on_all_sides():
    white = as_picture(Image.new("RGB", (3, 8), "white"))
    found = eval_transform(white, 6, 3)[..., 0]
    assert np.all(found[:, 1:4] == 255) and found.sum() == 6 * 3 * 255


def test_only_what_remains_of_an_elongated_image_is_resized(monkeypatch):
    sizes = []
    monkeypatch.setattr(
        "sysds_resnet.images.pixels.decode.resize",
        lambda _, h, w, __: sizes.append((h, w)) or np.zeros((h, w, 3)),
    )
    eval_transform(as_picture(picture(20_000, 2)), 224)
    assert sizes == [(224, 224)]


# --- training augmentation ---


def test_random_crop_follows_the_definition_with_the_random_numbers_fixed():
    # area 0.08 + 0.92 * 0.25 = 0.31 of 20,000; log ratio in the middle: a square of round(sqrt(6200)) = 79.
    assert random_crop_box(100, 200, ScriptedRng(0.25, 0.5, 0.5, 0.999)) == (11, 121, 79, 79)
    # least area and least ratio: 1,600 pixels, w = sqrt(1200), h = sqrt(1600 / 0.75).
    assert random_crop_box(100, 200, ScriptedRng(0, 0, 0, 0)) == (0, 0, 46, 35)


def test_random_crop_falls_back_to_the_centre_after_ten_draws():
    too_wide = [0.9999, 0.9999] * 10
    assert random_crop_box(40, 10, ScriptedRng(*too_wide)) == (13, 0, 13, 10)
    assert random_crop_box(10, 40, ScriptedRng(*too_wide)) == (0, 13, 10, 13)
    square = random_crop_box(30, 30, ScriptedRng(*too_wide))
    assert square == (0, 0, 30, 30)


def test_random_crops_have_the_stated_distribution():
    height, width, n = 1000, 1200, 3000
    boxes = [random_crop_box(height, width, sample_rng(0, Purpose.AUGMENT, 0, i)) for i in range(n)]
    top, left, h, w = np.array(boxes).T
    assert np.all((top >= 0) & (left >= 0) & (top + h <= height) & (left + w <= width))
    area = h * w / (height * width)
    ratio = w / h
    assert area.min() > 0.08 - 0.002 and area.max() <= 1
    assert ratio.min() > 3 / 4 - 0.005 and ratio.max() < 4 / 3 + 0.005
    # Below 0.6 every shape fits, so no draw is refused there: uniform area, symmetric log ratio.
    small = area < 0.6
    assert abs(area[small].mean() - 0.34) < 0.015
    log_ratio = np.log(ratio[small])
    assert abs(log_ratio.mean()) < 0.015
    assert abs(log_ratio.std() - math.log(16 / 9) / math.sqrt(12)) < 0.01
    assert abs((top / (height - h + 1))[small].mean() - 0.5) < 0.03
    assert abs((left / (width - w + 1))[small].mean() - 0.5) < 0.03


def test_half_of_the_training_images_are_flipped():
    # Darker to the left: a crop keeps that, a flip turns it round.
    ramp = Picture(np.tile(np.arange(256, dtype=np.uint8)[None, :, None], (64, 1, 3)), "ramp")
    flipped = 0
    for i in range(1000):
        image = train_transform(ramp, 8, sample_rng(0, Purpose.AUGMENT, 0, i), Augmentation()).astype(int)
        flipped += image[0, 0, 0] > image[0, -1, 0]
    assert 440 < flipped < 560


def test_training_crop_does_not_see_pixels_outside_its_box():
    pixels = np.full((100, 200, 3), 255, dtype=np.uint8)
    pixels[11:90, 121:200] = 0
    rng = ScriptedRng(0.25, 0.5, 0.5, 0.999, 0.9)
    assert train_transform(Picture(pixels, "x"), 16, rng, Augmentation()).max() == 0


@pytest.mark.parametrize("index", range(8))
def test_training_images_are_torchvisions_for_the_same_random_numbers(index):
    """The crop's box and the flip are ours, what becomes of the pixels is torchvision's."""
    image = open_photo(PHOTOS[index])
    rng, twin = (sample_rng(7, Purpose.AUGMENT, 1, index) for _ in range(2))
    found = train_transform(as_picture(image), 224, rng, Augmentation())
    expected = functional.resized_crop(image, *random_crop_box(image.height, image.width, twin), [224, 224])
    if twin.random() < 0.5:
        expected = functional.hflip(expected)
    assert np.abs(np.asarray(expected, int) - found).max() <= 1


def test_random_crop_boxes_are_torchvisions_for_the_same_random_numbers(monkeypatch):
    """Torchvision draws float32 numbers by uniform_ and randint; here both take them from one script."""
    rng = np.random.default_rng(0)
    numbers = iter(())

    def uniform(tensor, low=0.0, high=1.0):
        return tensor.fill_(low + (high - low) * next(numbers))

    def randint(low, high, size):
        return torch.tensor([low + int(next(numbers) * (high - low))])

    monkeypatch.setattr(torch.Tensor, "uniform_", uniform)
    monkeypatch.setattr(torch, "randint", randint)
    differences = []
    for width, height in [(500, 375), (375, 500), (64, 640), (33, 31), (1, 1)] * 40:
        script = rng.random(40).tolist()
        numbers = iter(script)
        i, j, h, w = transforms.RandomResizedCrop.get_params(
            Image.new("L", (width, height)), [0.08, 1.0], [3 / 4, 4 / 3]
        )
        found = random_crop_box(height, width, ScriptedRng(*script))
        differences.append(np.abs(np.subtract(found, (i, j, h, w))).max())
    # float32 may round to the next pixel
    assert len(differences) == 200 and max(differences) <= 1 and np.count_nonzero(differences) <= 2


@pytest.mark.parametrize("policy", ["randaugment", "trivialaugment"])
def test_additions_follow_the_crop_in_their_order(policy):
    image = open_photo(PHOTOS[2])
    rng, twin = (sample_rng(3, Purpose.AUGMENT, 0, 5) for _ in range(2))
    options = Augmentation(flip=1, policy=policy, magnitude=12, color_jitter=0.4, hue=0.1, erasing=1)
    found = train_transform(as_picture(image), 64, rng, options)
    plain = train_transform(as_picture(image), 64, twin, Augmentation(flip=1))
    expected = Image.fromarray(np.ascontiguousarray(plain))
    if policy == "randaugment":
        expected = rand_augment(expected, twin, magnitude=12)
    else:
        expected = trivial_augment_wide(expected, twin)
    expected = color_jitter(expected, twin, 0.4, 0.4, 0.4, 0.1)
    expected = random_erasing(np.asarray(expected), twin, 1, np.rint(IMAGENET_MEAN).astype(np.uint8))
    np.testing.assert_array_equal(found, expected)
    assert (found == np.rint(IMAGENET_MEAN)).all(axis=2).any()
    assert not np.array_equal(found, plain)


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (2, 500)])
def test_tiny_and_elongated_images_go_through_everything(size):
    options = Augmentation(policy="trivialaugment", color_jitter=0.4, hue=0.1, erasing=1)
    image = as_picture(picture(*size))
    for index in range(20):
        rng = sample_rng(0, Purpose.AUGMENT, 0, index)
        assert train_transform(image, 224, rng, options).shape == (224, 224, 3)
    assert eval_transform(image, 224).shape == (224, 224, 3)
