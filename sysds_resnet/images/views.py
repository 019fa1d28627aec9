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
    """One way to look at an image; the defaults are those of evaluation.

    Attributes:
        scale: The factor of the shorter side before the crop.
        place: The place of the crop in the resized image.
        mirrored: Whether left and right of the crop are swapped.
    """

    scale: float = 1.0
    place: Place = CENTRE
    mirrored: bool = False


def choose_views(tta: Tta = "none", scales: Sequence[float] = (1.0,)) -> list[View]:
    """Lists the views of each image.

    Args:
        tta: The kind of views: "none" for the centre, "flip" for it and its mirror image, "five" for the
            corners and the centre in the order of torchvision's FiveCrop, "ten" for these five and their
            mirror images. (torchvision's TenCrop crops the mirrored image, which gives the same, except that
            its centre is a column off where margins are odd.)
        scales: The scales; each has all views of the kind, one scale after the other.
    """
    places = (*CORNERS, CENTRE) if tta in ("five", "ten") else (CENTRE,)
    mirrored = (False, True) if tta in ("flip", "ten") else (False,)
    return [View(scale, place, flip) for scale in scales for flip in mirrored for place in places]


def seen_in(dataset: Dataset, views: Sequence[View]) -> Dataset:
    """Gives a data set of the images as seen in some views, or `dataset` itself for the usual one view."""
    return dataset if list(views) == [View()] else ViewDataset(dataset, views)


class ViewDataset:
    """A data set whose images are several views of another data set's images, one below the other.

    So a batch has all views of its images: (N, V*H, W, C) is (N*V, H, W, C) in another shape.

    Images that lie in memory count as resized already: the shorter side before the crop is theirs. With scale
    1, all their crops are then the image itself.

    Args:
        dataset: The other data set: for evaluation, without augmentation, with square images of 3 channels.
        views: The V views.

    Attributes:
        view_size: The size (H, W) of a view in pixels.
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
        """Gives the other data set's name of sample `index`."""
        return self._dataset.name(index)

    def relative_name(self, index: int) -> str:
        """Gives the other data set's name of sample `index` without its folder."""
        return self._dataset.relative_name(index)

    def files(self) -> Iterable[str]:
        """Gives the paths of the files that the other data set reads."""
        return self._dataset.files()

    def image(self, index: int, epoch: int) -> np.ndarray:
        """Gives the views of sample `index`, uint8 of shape (V*H, W, C)."""
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
