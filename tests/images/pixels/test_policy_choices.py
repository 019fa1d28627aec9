"""The random choices of augmentations: their distributions, and that they depend on nothing else."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from augmented_photo import FILL, PHOTO, STRENGTHS, generator
from scipy import stats

from sysds_resnet.images.pixels import policies
from sysds_resnet.images.pixels.policies import (
    WIDE_RANGES,
    color_jitter,
    erasing_box,
    operation_magnitude,
    rand_augment,
    random_erasing,
    trivial_augment_wide,
)

JITTERS = ("Brightness", "Contrast", "Color", "Hue")


def assert_equally_often(values, outcomes):
    counts = Counter(values)
    assert set(counts) <= set(outcomes)
    assert stats.chisquare([counts[outcome] for outcome in outcomes]).pvalue > 1e-3


def assert_uniform(values, low, high):
    assert stats.kstest(values, "uniform", args=(low, high - low)).pvalue > 1e-3


@pytest.fixture
def applied(monkeypatch):
    """The list of the operations asked for, as (name, magnitude); none is done."""
    calls = []

    def record(image, name, magnitude):
        calls.append((name, magnitude))
        return image

    monkeypatch.setattr(policies, "apply_operation", record)
    return calls


# --- RandAugment and TrivialAugment ---


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


# --- random erasing ---


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
