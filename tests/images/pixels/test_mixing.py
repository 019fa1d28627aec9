"""Mixup and CutMix against torchvision's own code and by their distributions."""

import numpy as np
import pytest
import torch
from scipy import stats
from torchvision.transforms import v2

from sysds_resnet.images.pixels.mixing import Mixing, cutmix_box
from sysds_resnet.images.pixels.transforms import Purpose, sample_rng


def batch(n=6, size=8):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (n, size, size, 3), dtype=np.uint8), np.arange(n)


def test_mixup_is_the_weighted_sum_with_the_neighbour():
    images, labels = batch()
    mixed, soft = Mixing(mixup=0.4).apply(images, labels, 0, 1, 2)
    share = soft.share[0]
    assert 0 < share < 1
    np.testing.assert_array_equal(soft.own, labels)
    np.testing.assert_array_equal(soft.other, [5, 0, 1, 2, 3, 4])
    np.testing.assert_array_equal(soft.share, np.full(6, share))
    expected = share * images + (1 - share) * np.roll(images, 1, axis=0)
    assert np.abs(mixed - expected).max() <= 0.5 + 1e-3


def test_cutmix_pastes_a_box_of_the_neighbour_and_counts_its_pixels():
    images, labels = batch(size=32)
    for step in range(20):
        mixed, soft = Mixing(cutmix=1.0).apply(images, labels, 0, 0, step)
        others = np.roll(images, 1, axis=0)
        own = (mixed == images).all(axis=(0, 3))
        np.testing.assert_array_equal(mixed[:, ~own], others[:, ~own])
        assert soft.share[0] == pytest.approx(own.mean())
        rows, columns = np.nonzero(~own)
        if rows.size:
            assert (~own)[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].all()


def test_mixing_is_torchvisions_for_the_same_random_numbers(monkeypatch):
    images, labels = batch(size=32)
    tensors = torch.from_numpy(images).permute(0, 3, 1, 2).double()
    for step in range(10):
        for kind, reference in (("mixup", v2.MixUp), ("cutmix", v2.CutMix)):
            rng = sample_rng(1, Purpose.MIX, 0, step)
            rng.random()
            share = float(stats.beta.ppf(rng.random(), 0.7, 0.7))
            numbers = [int(rng.random() * 32), int(rng.random() * 32)] if kind == "cutmix" else []
            theirs = reference(alpha=0.7, num_classes=6)
            monkeypatch.setattr(theirs._dist, "sample", lambda _=(), share=share: torch.tensor([share]))
            monkeypatch.setattr(torch, "randint", lambda *_, n=numbers, **__: torch.tensor([n.pop(0)]))
            expected, target = theirs(tensors, torch.from_numpy(labels))
            found, soft = Mixing(**{kind: 0.7}).apply(images, labels, 1, 0, step)
            assert np.abs(expected.permute(0, 2, 3, 1).numpy() - found).max() <= 0.5 + 1e-3
            identity = np.eye(6)
            share = soft.share[:, None]
            ours = identity[soft.own] * share + identity[soft.other] * (1 - share)
            np.testing.assert_allclose(ours, target.numpy(), atol=1e-6)


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_shares_of_mixup_are_beta_distributed(alpha):
    images, labels = batch(2, 1)
    shares = [Mixing(mixup=alpha).apply(images, labels, 0, 0, step)[1].share[0] for step in range(1000)]
    assert stats.kstest(shares, stats.beta(alpha, alpha).cdf).pvalue > 0.01


def test_boxes_of_cutmix_are_spread_over_the_image():
    rng = np.random.default_rng(0)
    boxes = np.array([cutmix_box(100, 200, 0.75, rng) for _ in range(2000)])
    top, left, bottom, right = boxes.T
    assert top.min() == 0 and left.min() == 0 and bottom.max() == 100 and right.max() == 200
    assert (bottom - top).max() == 50 and (right - left).max() == 100
    inside = (top > 0) & (bottom < 100) & (left > 0) & (right < 200)
    assert stats.chisquare(np.bincount(top[inside], minlength=50)[1:]).pvalue > 0.01
    assert stats.chisquare(np.bincount(left[inside], minlength=100)[1:]).pvalue > 0.01


def test_both_ways_of_mixing_take_turns_at_random():
    images, labels = batch(4, 16)
    both = Mixing(mixup=1.0, cutmix=1.0)
    pasted = 0
    for step in range(200):
        mixed, _ = both.apply(images, labels, 0, 0, step)
        pasted += np.isin(mixed[1], [images[1], images[0]]).all() and (mixed == images).all(axis=3).any()
    assert 70 < pasted < 130


def test_mixing_depends_on_seed_epoch_and_step_only_and_changes_nothing_in_place():
    images, labels = batch()
    before = images.copy()
    shares = {
        key: Mixing(mixup=0.2).apply(images, labels, *key)[1].share[0]
        for key in ((0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0))
    }
    assert len(set(shares.values())) == 4
    assert Mixing(mixup=0.2).apply(images, labels, 0, 0, 1)[1].share[0] == shares[0, 0, 1]
    np.testing.assert_array_equal(images, before)
    assert not Mixing() and Mixing(mixup=0.2) and Mixing(cutmix=1)
