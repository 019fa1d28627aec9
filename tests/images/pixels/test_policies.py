"""Augmentations against torchvision's own code, for the same choices."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from augmented_photo import FILL, PHOTO, STRENGTHS, generator
from torchvision_reference import autoaugment, functional, transforms

from sysds_resnet.images.pixels.policies import (
    OPERATIONS,
    WIDE_RANGES,
    apply_operation,
    color_jitter,
    operation_magnitude,
    rand_augment,
    rand_augment_ranges,
    random_erasing,
    trivial_augment_wide,
)

BILINEAR = transforms.InterpolationMode.BILINEAR


SIZES = [(64, 48), (1, 1), (3, 50), (41, 2)]


# The last bit of torch.linspace depends on whether the processor multiplies and adds with one rounding.
FUSED = torch.backends.cpu.get_cpu_capability().startswith("AVX")


def scripted(*numbers):
    """Give the listed numbers by random()."""
    return SimpleNamespace(random=iter(numbers).__next__)


def torchvision_spaces(width, height):
    """The operations of RandAugment and of TrivialAugmentWide: name to magnitudes and whether signed."""
    return (
        transforms.RandAugment()._augmentation_space(31, (height, width)),
        transforms.TrivialAugmentWide()._augmentation_space(31),
    )


def assert_same(found, expected):
    assert (found.mode, found.size) == (expected.mode, expected.size)
    np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))


@pytest.fixture
def torch_draws(monkeypatch):
    """Let torchvision draw from rng.random() what it draws from torch."""

    def draw_from(rng):
        def randint(*bounds, size=None, dtype=None):  # (n, size) or (0, n)
            n = bounds[1] if size else bounds[0]
            return torch.tensor([int(n * rng.random())])

        monkeypatch.setattr(torch, "randint", randint)
        monkeypatch.setattr(torch, "rand", lambda n: torch.tensor([rng.random()]))
        monkeypatch.setattr(
            torch.Tensor, "uniform_", lambda self, low, high: self.fill_(low + (high - low) * rng.random())
        )

    return draw_from


# --- operations ---


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", WIDE_RANGES)
def test_operation_equals_torchvisions_at_every_magnitude_of_both_policies(name, size):
    image = PHOTO.resize(size)
    before = image.tobytes()
    for space in torchvision_spaces(*size):
        magnitudes, signed = space[name]
        for magnitude in magnitudes.reshape(-1).tolist():
            for value in (magnitude, -magnitude) if signed else (magnitude,):
                expected = autoaugment._apply_op(image, name, value, BILINEAR, fill=None)
                assert_same(apply_operation(image, name, value), expected)
    assert image.tobytes() == before


@pytest.mark.parametrize("size", SIZES)
def test_hue_equals_torchvisions(size):
    image = PHOTO.resize(size)
    for turns in np.linspace(-0.5, 0.5, 41).tolist():
        assert_same(apply_operation(image, "Hue", turns), functional.adjust_hue(image, turns))


def test_every_operation_but_the_identity_changes_the_photo():
    magnitudes = {"Posterize": 3, "Solarize": 128, "TranslateX": 5, "TranslateY": 5, "Rotate": 20}
    same = [name for name in OPERATIONS if apply_operation(PHOTO, name, magnitudes.get(name, 0.3)) == PHOTO]
    assert same == ["Identity"]


@pytest.mark.parametrize("size", [(64, 48), (224, 224), (333, 7)])
def test_magnitudes_equal_torchvisions(size):
    ranges = (rand_augment_ranges(*size), WIDE_RANGES)
    for space, reaches in zip(torchvision_spaces(*size), ranges, strict=True):
        assert list(reaches) == list(space)
        for name, (magnitudes, _) in space.items():
            found = np.array([operation_magnitude(name, level, reaches[name]) for level in range(31)])
            np.testing.assert_array_equal(found, found.astype(np.float32))
            expected = np.broadcast_to(magnitudes.float().numpy(), 31)
            np.testing.assert_array_max_ulp(found.astype(np.float32), expected, maxulp=0 if FUSED else 1)


# --- RandAugment and TrivialAugment ---


@pytest.mark.parametrize("num_ops, magnitude", [(1, 9), (2, 9), (3, 0), (2, 30)])
def test_rand_augment_equals_torchvisions_for_the_same_choices(torch_draws, num_ops, magnitude):
    reference = transforms.RandAugment(num_ops, magnitude, interpolation=BILINEAR)
    torch_draws(generator(0))
    rng = generator(0)
    for _ in range(200):
        assert_same(rand_augment(PHOTO, rng, num_ops, magnitude), reference(PHOTO))


def test_rand_augment_does_two_operations_of_level_nine_by_default():
    rng, again = generator(0), generator(0)
    for _ in range(20):
        assert_same(rand_augment(PHOTO, rng), rand_augment(PHOTO, again, 2, 9))


@pytest.mark.skipif(not FUSED, reason="torchvision translates by 16 instead of 15 pixels here")
def test_trivial_augment_equals_torchvisions_for_the_same_choices(torch_draws):
    reference = transforms.TrivialAugmentWide(interpolation=BILINEAR)
    rng = generator(0)
    for _ in range(500):
        level, operation, sign = rng.random(3)
        torch_draws(scripted(operation, level, sign))
        assert_same(trivial_augment_wide(PHOTO, scripted(level, operation, sign)), reference(PHOTO))


# --- colour jitter ---


def test_colour_jitter_equals_torchvisions_for_the_same_choices(monkeypatch):
    reference = transforms.ColorJitter(**STRENGTHS)
    rng = generator(0)
    for order in itertools.permutations(range(4)):
        shares = rng.random(4).tolist()
        ranks = [order.index(operation) / 4 for operation in range(4)]

        def parameters(*ranges, order=order, shares=shares):
            values = (low + (high - low) * u for (low, high), u in zip(ranges, shares, strict=True))
            return order, *values

        monkeypatch.setattr(reference, "get_params", parameters)
        choices = scripted(*ranks, *(shares[operation] for operation in order))
        assert_same(color_jitter(PHOTO, choices, **STRENGTHS), reference(PHOTO))


def test_colour_jitter_without_strength_keeps_the_pixels():
    assert_same(color_jitter(PHOTO, generator(0), 0, 0, 0, 0), PHOTO)


# --- random erasing ---


@pytest.mark.parametrize("size", [*SIZES, (224, 224)])
@pytest.mark.parametrize("ranges", [{}, {"scale": (0.2, 1.0), "ratio": (0.5, 4.0)}])
def test_random_erasing_equals_torchvisions_for_the_same_choices(torch_draws, size, ranges):
    pixels = np.asarray(PHOTO.resize(size))
    reference = transforms.RandomErasing(0.7, value=FILL.tolist(), **ranges)
    torch_draws(generator(0))
    rng = generator(0)
    for _ in range(100):
        expected = reference(torch.tensor(pixels).permute(2, 0, 1)).permute(1, 2, 0)
        found = random_erasing(pixels, rng, 0.7, FILL, **ranges)
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, expected)


def test_random_erasing_leaves_its_argument_as_it_is():
    pixels = np.array(PHOTO)
    for seed in range(20):
        erased = random_erasing(pixels, generator(seed), 1.0, FILL)
        assert not np.array_equal(erased, pixels)
        np.testing.assert_array_equal(pixels, PHOTO)
