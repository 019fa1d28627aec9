"""A part of a data set, for one of several processes that go through it together."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from sysds_resnet.images.datasets import Dataset


class PartDataset:
    """The samples of another data set from a position on; a `Dataset` itself.

    Args:
        whole: The other data set.
        places: The positions in it of the samples of this one.

    Attributes:
        whole, places: The arguments.
    """

    def __init__(self, whole: Dataset, places: range) -> None:
        self.whole, self.places = whole, places
        self.classes, self.num_classes, self.channels = whole.classes, whole.num_classes, whole.channels
        self.image_size, self.mean, self.std = whole.image_size, whole.mean, whole.std
        self.notes, self.decodes = whole.notes, whole.decodes
        self.labels = whole.labels[places.start : places.stop]

    def __len__(self) -> int:
        return len(self.places)

    def name(self, index: int) -> str:
        """Gives the other data set's name of sample `index`."""
        return self.whole.name(self.places[index])

    def relative_name(self, index: int) -> str:
        """Gives the other data set's name of sample `index` without its folder."""
        return self.whole.relative_name(self.places[index])

    def files(self) -> Iterable[str]:
        """Gives the paths of the files that the other data set reads."""
        return self.whole.files()

    def image(self, index: int, epoch: int) -> np.ndarray:
        """Gives sample `index` as the other data set shows it in `epoch`."""
        return self.whole.image(self.places[index], epoch)
