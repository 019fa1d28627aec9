"""Augmentations against torchvision's own code, and the distributions of their random choices."""

import itertools
import math
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from sklearn.datasets import load_sample_image
from torchvision_reference import autoaugment, functional, transforms

from sysds_resnet.images.pixels import policies
from sysds_resnet.images.pixels.policies import (
    OPERATIONS,
    WIDE_RANGES,
    apply_operation,
    color_jitter,
    erasing_box,
    operation_magnitude,
    rand_augment,
    rand_augment_ranges,
    random_erasing,
    trivial_augment_wide,
)

BILINEAR = transforms.InterpolationMode.BILINEAR
PHOTO = Image.fromarray(load_sample_image("china.jpg")).resize((64, 48))
SIZES = [(64, 48), (1, 1), (3, 50), (41, 2)]
STRENGTHS = {"brightness": 0.4, "contrast": 1.5, "saturation": 0.2, "hue": 0.5}
JITTERS = ("Brightness", "Contrast", "Color", "Hue")
FILL = np.array([124, 116, 104], dtype=np.uint8)
# The last bit of torch.linspace depends on whether the processor multiplies and adds with one rounding.
FUSED = torch.backends.cpu.get_cpu_capability().startswith("AVX")


def generator(seed):
    return np.random.Generator(np.random.PCG64(seed))


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


def assert_equally_often(values, outcomes):
    counts = Counter(values)
    assert set(counts) <= set(outcomes)
    assert stats.chisquare([counts[outcome] for outcome in outcomes]).pvalue > 1e-3


def assert_uniform(values, low, high):
    assert stats.kstest(values, "uniform", args=(low, high - low)).pvalue > 1e-3


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


@pytest.fixture
def applied(monkeypatch):
    """The list of the operations asked for, as (name, magnitude); none is done."""
    calls = []

    def record(image, name, magnitude):
        calls.append((name, magnitude))
        return image

    monkeypatch.setattr(policies, "apply_operation", record)
    return calls


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


def test_rand_augment_draws_pairs_of_operations_and_signs_equally_often(applied):
    rng = generator(0)
    for _ in range(4000):
        rand_augment(PHOTO, rng)
    names = [name for name, _ in applied]
    pairs = zip(names[::2], names[1::2], strict=True)
    assert_equally_often(pairs, list(itertools.product(WIDE_RANGES, repeat=2)))
    assert_equally_often([magnitude > 0 for name, magnitude in applied if name == "Rotate"], (True, False))


def test_trivial_augment_draws_operations_levels_and_signs_equally_often(applied):
    rng = generator(0)
    for _ in range(8000):
        trivial_augment_wide(PHOTO, rng)
    assert_equally_often([name for name, _ in applied], WIDE_RANGES)
    for name in ("ShearX", "TranslateY", "Rotate", "Color", "Solarize"):
        magnitudes = [operation_magnitude(name, level, WIDE_RANGES[name]) for level in range(31)]
        found = [magnitude for called, magnitude in applied if called == name]
        assert_equally_often([magnitudes.index(abs(magnitude)) for magnitude in found], range(31))
        if name != "Solarize":
            assert_equally_often([magnitude > 0 for magnitude in found if magnitude], (True, False))


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


def test_colour_jitter_draws_orders_equally_often_and_factors_uniformly(applied):
    rng = generator(0)
    for _ in range(2400):
        color_jitter(PHOTO, rng, **STRENGTHS)
    orders = [tuple(name for name, _ in applied[i : i + 4]) for i in range(0, len(applied), 4)]
    assert_equally_often(orders, list(itertools.permutations(JITTERS)))
    ranges = ((-0.4, 0.4), (-1, 1.5), (-0.2, 0.2), (-0.5, 0.5))
    for name, (low, high) in zip(JITTERS, ranges, strict=True):
        assert_uniform([magnitude for called, magnitude in applied if called == name], low, high)


@pytest.mark.parametrize("left_out", range(4))
def test_colour_jitter_leaves_out_what_has_no_strength(applied, left_out):
    strengths = STRENGTHS | {list(STRENGTHS)[left_out]: 0}
    color_jitter(PHOTO, generator(0), **strengths)
    assert sorted(name for name, _ in applied) == sorted(set(JITTERS) - {JITTERS[left_out]})


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


def test_random_erasing_happens_with_its_probability():
    pixels, rng = np.asarray(PHOTO), generator(0)
    erased = sum(random_erasing(pixels, rng, 0.25, FILL) is not pixels for _ in range(4000))
    assert stats.binomtest(erased, 4000, 0.25).pvalue > 1e-3
    assert all(random_erasing(pixels, rng, 0, FILL) is pixels for _ in range(100))


def test_erased_boxes_have_the_stated_distribution():
    height, width, rng = 2000, 2400, generator(0)
    top, left, h, w = np.array([erasing_box(height, width, rng) for _ in range(3000)]).T
    assert np.all((top >= 0) & (left >= 0) & (top + h <= height) & (left + w <= width))
    share = h * w / (height * width)
    # Below 0.25 every shape fits, so no draw is refused there.
    small = share < 0.25
    assert_uniform(share[small], 0.02, 0.25)
    assert_uniform(np.log(h / w)[small], math.log(0.3), math.log(3.3))
    assert_uniform((top / (height - h + 1))[small], 0, 1)
    assert_uniform((left / (width - w + 1))[small], 0, 1)
    assert 0.32 < share.max() < 0.331


@pytest.mark.parametrize("height, width", [(1, 1), (1, 100), (100, 1)])
def test_no_box_is_erased_where_none_is_smaller_than_the_image(height, width):
    assert erasing_box(height, width, generator(0), scale=(0.5, 1.0)) is None


# --- all ---


@pytest.mark.parametrize(
    "augment",
    [
        lambda rng: color_jitter(PHOTO, rng, **STRENGTHS),
        lambda rng: rand_augment(PHOTO, rng),
        lambda rng: trivial_augment_wide(PHOTO, rng),
        lambda rng: random_erasing(np.asarray(PHOTO), rng, 0.8, FILL),
    ],
)
def test_same_random_numbers_give_the_same_pixels_and_others_do_not(augment):
    first, second = ([augment(generator(seed)).tobytes() for seed in range(10)] for _ in range(2))
    assert first == second
    assert len(set(first)) > 5
