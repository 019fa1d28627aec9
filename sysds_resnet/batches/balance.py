"""Orders of samples in which all classes come equally often, for data sets whose classes are uneven."""

from __future__ import annotations

import numpy as np

from sysds_resnet.batches.order import Order


def balanced_order(order: Order, labels: np.ndarray, seed: int) -> Order:
    """Gives an order of as many samples in which each class comes as often as each other, but for one sample.

    In an epoch, samples of small classes come several times and are augmented anew each time; samples of
    large classes are drawn without replacement. No sample comes a second time before all others of its class
    have come once. Which classes have one sample more, where the number of samples is no multiple of that of
    the classes, differs from epoch to epoch.

    Args:
        order: The order without balance, a permutation of 0 to n - 1, which decides where the samples come.
        labels: The class of each sample, integers of shape (n,).
        seed: The seed of the choice of samples.
    """
    members = [np.flatnonzero(labels == label) for label in np.unique(labels)]

    def balanced(epoch: int) -> np.ndarray:
        generator = np.random.default_rng([seed, epoch])
        n, classes = len(labels), len(members)
        counts = np.full(classes, n // classes)
        counts[generator.permutation(classes)[: n % classes]] += 1
        chosen = [_draw(own, count, n, generator) for own, count in zip(members, counts, strict=True)]
        return np.concatenate(chosen)[order(epoch)]

    return balanced


def _draw(members: np.ndarray, count: int, n: int, generator: np.random.Generator) -> np.ndarray:
    """Draws samples of a class; their further appearances have the numbers that `Order` gives them."""
    passes = -(-count // len(members))
    return np.concatenate([generator.permutation(members) + n * appearance for appearance in range(passes)])[
        :count
    ]
