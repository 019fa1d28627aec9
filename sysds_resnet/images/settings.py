"""The settings of data sets and of what is done to their images, and the notes on data sets."""

from __future__ import annotations

from typing import Any

from sysds_resnet.images import BUILT_IN, Augmentation, Dataset, Layout
from sysds_resnet.images.pixels.mixing import Mixing
from sysds_resnet.images.pixels.transforms import Policy
from sysds_resnet.settings.base import Settings
from sysds_resnet.settings.fields import setting
from sysds_resnet.system.console import note
from sysds_resnet.system.urls import absolute


class DataSettings(Settings):
    """The settings of commands that read a data set."""

    dataset: str = setting(
        "digits",
        group="data",
        value="NAME|PATH|URL",
        common=True,
        resume="place",
        description="Data set: digits, photos, synthetic, the path of images in one of the layouts, or the "
        "URL of a prepared data set.",
    )
    layout: Layout | None = setting(
        None,
        group="data",
        resume="place",
        description="Layout of the data set at a path; by default the first of these that its files show "
        "signs of.",
    )
    val_split: float | None = setting(
        None,
        group="data",
        common=True,
        resume="place",
        gt=0,
        lt=1,
        description="Share of each class's training images that is for validation, for a data set without "
        "validation images; often 0.1.",
    )
    split_seed: int = setting(
        0,
        group="data",
        resume="place",
        ge=0,
        description="Seed of the choice of the images that val_split takes.",
    )

    def where(self) -> dict[str, Any]:
        """Gives the arguments of `open_dataset` that say where a data set has its images."""
        return {"layout": self.layout, "val_split": self.val_split, "split_seed": self.split_seed}

    def located(self, elsewhere: bool) -> str:
        """Gives the data set in the form that `open_dataset` takes.

        Args:
            elsewhere: Whether it is also read by processes in other working directories, such as the
                executors of a Spark cluster. A relative path would name something else there, so it is made
                absolute.
        """
        return absolute(self.dataset) if elsewhere and self.dataset not in BUILT_IN else self.dataset


class AugmentationSettings(Settings):
    """The settings of commands that augment training images; the defaults are torchvision's."""

    crop_area: float = setting(
        0.08,
        group="augmentation",
        chosen=True,
        gt=0,
        le=1,
        description="Least share of a training image's area that a random crop has.",
    )
    flip: float = setting(
        0.5, group="augmentation", ge=0, le=1, description="Probability of a horizontal flip."
    )
    policy: Policy = setting(
        "none",
        group="augmentation",
        common=True,
        description="Policy of random operations: RandAugment, or TrivialAugment in its wide form.",
    )
    magnitude: int = setting(
        9, group="augmentation", ge=0, le=30, description="Magnitude of RandAugment's operations."
    )
    color_jitter: float = setting(
        0.0,
        group="augmentation",
        ge=0,
        description="Greatest relative change of brightness, contrast and saturation; often 0.4.",
    )
    hue: float = setting(
        0.0,
        group="augmentation",
        ge=0,
        le=0.5,
        description="Greatest change of the hue, in turns of the colour circle; often 0.1.",
    )
    erasing: float = setting(
        0.0,
        group="augmentation",
        ge=0,
        le=1,
        description="Probability that a random rectangle is erased; often 0.1.",
    )
    mixup: float = setting(
        0.0,
        group="mixing",
        ge=0,
        description="Alpha of mixup, 0 for none; often 0.2. With cutmix too, each batch gets one of the two.",
    )
    cutmix: float = setting(0.0, group="mixing", ge=0, description="Alpha of CutMix, 0 for none; often 1.")

    def augmentation(self) -> Augmentation:
        """Gives the augmentation of each training image."""
        return Augmentation(
            crop_scale=(self.crop_area, 1.0),
            flip=self.flip,
            policy=self.policy,
            magnitude=self.magnitude,
            color_jitter=self.color_jitter,
            hue=self.hue,
            erasing=self.erasing,
        )

    def mixing(self) -> Mixing:
        """Gives the mixing of each training batch."""
        return Mixing(self.mixup, self.cutmix)


def print_notes(*datasets: Dataset) -> None:
    """Prints the notes of data sets, such as on files left out, on standard error, each note once."""
    for text in dict.fromkeys(text for dataset in datasets for text in dataset.notes):
        note(text)
