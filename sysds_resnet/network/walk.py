"""The walk through a network for other libraries, which take the network's operations from here.

What SystemDS computes is in DML (dml/network/network.dml). Both walks go by the registry
(dml/network/registry.dml), which has the order, the kernels and the strides of the convolutions.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from operator import attrgetter
from typing import Protocol, TypeVar

from sysds_resnet.network.registry import Unit

POOL_KERNEL, POOL_STRIDE, POOL_PADDING = 3, 2, 1
"""The max pool after the stem, in pixels; He et al. 2015, https://arxiv.org/abs/1512.03385, table 1."""

T = TypeVar("T")


class Operations(Protocol[T]):
    """The operations of a network, in some library. A value T is an activation, of shape (N, C, H, W)."""

    def unit(self, x: T, unit: Unit) -> T:
        """Gives the convolution of a unit, normalized by the running statistics of its norm."""
        ...

    def relu(self, x: T) -> T:
        """Gives the positive part."""
        ...

    def max_pool(self, x: T) -> T:
        """Gives the max pool after the stem."""
        ...

    def add(self, x: T, y: T) -> T:
        """Gives the sum of a block's main path and of its shortcut."""
        ...

    def head(self, x: T) -> T:
        """Gives the final layer of the mean over all pixels: the logits, of shape (N, num_classes)."""
        ...


def walk(units: Sequence[Unit], operations: Operations[T], images: T) -> T:
    """Gives the logits of normalized images, by the operations of some library.

    Args:
        units: The units of the network, as `Network` has them.
        operations: The operations that make the logits.
        images: The normalized images, of shape (N, C, H, W).
    """
    stem, *rest = units
    x = operations.max_pool(operations.relu(operations.unit(images, stem)))
    for _, group in groupby(rest, attrgetter("block")):
        block = list(group)
        *inner, last = (unit for unit in block if not unit.shortcut)
        y = x
        for unit in inner:
            y = operations.relu(operations.unit(y, unit))
        y = operations.unit(y, last)
        for unit in block:
            if unit.shortcut:
                x = operations.unit(x, unit)
        x = operations.relu(operations.add(y, x))
    return operations.head(x)
