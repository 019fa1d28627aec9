"""Several views of each image, for predictions that are averaged over them (test-time augmentation)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np

from sysds_resnet.images.datasets import Dataset
from sysds_resnet.images.encoded import EncodedDataset
from sysds_resnet.images.pixels.decode import Picture
from sysds_resnet.images.pixels.transforms import CENTRE, CORNERS, Place, eval_transform

Tta = Literal["none", "flip", "five", "ten"]


@dataclass(frozen=True)
class View:
    """One way to look at an image; without arguments, that of evaluation.

    Attributes:
        scale: factor of the shorter side before the crop.
        place: of the crop in the resized image.
        mirrored: left and right of the crop changed.
    """

    scale: float = 1.0
    place: Place = CENTRE
    mirrored: bool = False


def choose_views(tta: Tta = "none", scales: Sequence[float] = (1.0,)) -> list[View]:
    """List the views of each image.

    Args:
        tta: "none" for the centre, "flip" for it and its mirror image, "five" for the corners and the centre
            in the order of torchvision's FiveCrop, "ten" for these five and their mirror images. (TenCrop
            crops the mirrored image: the same, but for a centre a column beside where margins are odd.)
        scales: of each of these, one after the other.
    """
    places = (*CORNERS, CENTRE) if tta in ("five", "ten") else (CENTRE,)
    mirrored = (False, True) if tta in ("flip", "ten") else (False,)
    return [View(scale, place, flip) for scale in scales for flip in mirrored for place in places]


def seen_in(dataset: Dataset, views: Sequence[View]) -> Dataset:
    """A data set as its images are seen in some views; itself for the usual one."""
    return dataset if list(views) == [View()] else ViewDataset(dataset, views)


class ViewDataset:
    """A data set whose images are several views of another's, one below the other.

    So a batch has all views of its images: (N, V*H, W, C) is (N*V, H, W, C) in another shape.

    Where images lie in memory at their size, that is the shorter side before the crop: with scale 1, all
    crops are the image.

    Args:
        dataset: of evaluation, without augmentation, of square images with 3 channels.
        views: V of them.

    Attributes:
        view_size: (H, W) of a view in pixels.
    """

    def __init__(self, dataset: Dataset, views: Sequence[View]) -> None:
        self._dataset = dataset
        self._views = list(views)
        self.view_size = dataset.image_size
        self.image_size = (len(self._views) * self.view_size[0], self.view_size[1])
        self.classes, self.num_classes, self.labels = dataset.classes, dataset.num_classes, dataset.labels
        self.channels, self.mean, self.std = dataset.channels, dataset.mean, dataset.std
        self.notes, self.decodes = dataset.notes, dataset.decodes

    def __len__(self) -> int:
        return len(self._dataset)

    def name(self, index: int) -> str:
        """What the other data set calls the sample."""
        return self._dataset.name(index)

    def relative_name(self, index: int) -> str:
        """What the other data set calls it wherever it lies."""
        return self._dataset.relative_name(index)

    def files(self) -> Iterable[str]:
        """Those of the other data set."""
        return self._dataset.files()

    def image(self, index: int, epoch: int) -> np.ndarray:
        """Give the views of sample `index`, uint8 of shape (V*H, W, C)."""
        if isinstance(self._dataset, EncodedDataset):
            with self._dataset.open(index) as picture:
                return self._all_views(picture, self._dataset.resize_size)
        return self._all_views(
            Picture(self._dataset.image(index, epoch), self.name(index)), self.view_size[0]
        )

    def _all_views(self, picture: Picture, resize_size: int) -> np.ndarray:
        @cache  # a mirror image needs no crop of its own
        def crop(scale: float, place: Place) -> np.ndarray:
            return eval_transform(picture, self.view_size[0], max(1, round(resize_size * scale)), place)

        crops = [(crop(view.scale, view.place), view.mirrored) for view in self._views]
        return np.concatenate([pixels[:, ::-1] if mirrored else pixels for pixels, mirrored in crops])
