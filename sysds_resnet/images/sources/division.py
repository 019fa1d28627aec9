"""The division of the images of one source into a part for training and a part for validation.

It is for data sets that come without validation images. The division is stratified: each class gives the
same share of its images. It depends on the names of the images and on a seed alone, so that every command
that is given the same seed and share finds the same images in each part.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from hashlib import blake2b

import numpy as np

from sysds_resnet.errors import UserError
from sysds_resnet.images.sources.base import Source
from sysds_resnet.images.sources.files import Split


class PartSource:
    """A source that has some of the samples of another one, in their order.

    Args:
        whole: The other source.
        indices: The positions of the samples in it, int64 of shape (n,).
        notes: The lines for people to read on the data set.
    """

    def __init__(self, whole: Source, indices: np.ndarray, notes: list[str]) -> None:
        self.whole, self.notes = whole, notes
        self._indices = indices
        self.labels, self.classes = whole.labels[indices], whole.classes

    def name(self, index: int) -> str:
        """Gives the name of sample `index` in errors and tables."""
        return self.whole.name(int(self._indices[index]))

    def relative_name(self, index: int) -> str:
        """Gives the name of sample `index` without the data set's folder."""
        return self.whole.relative_name(int(self._indices[index]))

    def files(self) -> Iterable[str]:
        """Gives the paths of the files that samples are read from, in the samples' order."""
        paths = list(self.whole.files())
        if len(paths) != len(self.whole.labels):  # files of many images each
            return paths
        return (paths[index] for index in self._indices.tolist())

    def read(self, index: int) -> bytes | np.ndarray:
        """Gives the bytes or the pixels of sample `index`."""
        return self.whole.read(int(self._indices[index]))


def divide(whole: Source, split: Split, share: float, seed: int, name: str) -> PartSource:
    """Gives the part of a source that is for training or for validation.

    Args:
        whole: The source of all images.
        split: The part to give, "train" or "val".
        share: The share of each class's images that is for validation, above 0 and below 1.
        seed: The seed of the choice, at least 0.
        name: The name of the data set in notes and errors.

    Raises:
        UserError: If the share is out of its range, the seed is negative, or validation gets no image.
    """
    if not 0 < share < 1:
        raise UserError(
            f"val_split: found {share}, expected a share above 0 and below 1, such as 0.1: choose another"
        )
    if seed < 0:
        raise UserError(f"split_seed: found {seed}, expected an integer of at least 0: choose another seed")
    chosen = validation_samples(whole, share, seed)
    if not chosen.any():
        raise UserError(
            f"data set {name}: found {len(chosen)} images and no class with two, expected images for both "
            "training and validation: add some"
        )
    text = (
        f"data set {name}: {chosen.sum()} of its {len(chosen)} images are for validation, by val_split "
        f"{share:g} of each class with split_seed {seed}"
    )
    counts = np.bincount(whole.labels, minlength=len(whole.classes))
    if lone := [whole.classes[i] for i in np.flatnonzero(counts == 1)]:
        text += f"; {len(lone)} classes of one image have none, the first: {lone[0]!r}"
    return PartSource(whole, np.flatnonzero(chosen if split == "val" else ~chosen), [*whole.notes, text])


def validation_samples(whole: Source, share: float, seed: int) -> np.ndarray:
    """Chooses the samples of a source that are for validation.

    Each class of n images gives round(share * n), but at least one and at most n - 1. These are the ones
    whose names have the least digests, keyed by the seed, so that most images stay in their part when others
    are added.

    Args:
        whole: The source of all images.
        share: The share of each class's images, above 0 and below 1.
        seed: The seed of the choice, at least 0.

    Returns:
        Whether each sample is for validation, bool of shape (n,).
    """
    key = str(seed).encode()
    names = (os.fsencode(whole.relative_name(index)) for index in range(len(whole.labels)))
    digests = (blake2b(name, digest_size=8, key=key).digest() for name in names)
    ranks = np.frombuffer(b"".join(digests), ">u8")
    labels = whole.labels
    counts = np.bincount(labels, minlength=len(whole.classes))
    numbers = np.minimum(np.maximum(np.round(share * counts), 1), np.maximum(counts - 1, 0))
    order = np.lexsort((ranks, labels))  # by class, and in each class by rank
    places = np.arange(len(order)) - (np.cumsum(counts) - counts)[labels[order]]
    chosen = np.zeros(len(labels), bool)
    chosen[order[places < numbers[labels[order]]]] = True
    return chosen
