"""The settings of data sets and of what is done to their images, and the notes on them."""

from __future__ import annotations

from sysds_resnet.images import BUILT_IN, Augmentation, Dataset, Layout
from sysds_resnet.images.pixels.mixing import Mixing
from sysds_resnet.images.pixels.transforms import Policy
from sysds_resnet.settings.command_line import Settings
from sysds_resnet.settings.fields import setting
from sysds_resnet.system.console import note
from sysds_resnet.system.shared_files import absolute


class DataSettings(Settings):
    """Settings of commands that read a data set."""

    dataset: str = setting(
        "digits",
        group="data",
        resume="place",
        description="digits, photos, synthetic, the path of images in one of the layouts, or the URL of a "
        "prepared data set.",
    )
    layout: Layout | None = setting(
        None,
        group="data",
        resume="place",
        description="Of the data set at a path; by default the first of these that there are signs of.",
    )

    def located(self, elsewhere: bool) -> str:
        """The data set as `open_dataset` takes it.

        Args:
            elsewhere: Whether processes read it too that run in folders of their own, such as the executors
                of a Spark cluster, where a relative path would name something else.
        """
        return absolute(self.dataset) if elsewhere and self.dataset not in BUILT_IN else self.dataset


class AugmentationSettings(Settings):
    """Settings of commands that augment training images, torchvision's by default."""

    crop_area: float = setting(
        0.08,
        group="augmentation",
        gt=0,
        le=1,
        description="Least share of an image's area in a random crop of a training image.",
    )
    flip: float = setting(
        0.5, group="augmentation", ge=0, le=1, description="Probability of a horizontal flip."
    )
    policy: Policy = setting(
        "none", group="augmentation", description="RandAugment, or TrivialAugment in its wide form."
    )
    magnitude: int = setting(9, group="augmentation", ge=0, le=30, description="Of RandAugment.")
    color_jitter: float = setting(
        0.0, group="augmentation", ge=0, description="Of brightness, contrast and saturation; often 0.4."
    )
    hue: float = setting(0.0, group="augmentation", ge=0, le=0.5, description="Jitter of the hue; often 0.1.")
    erasing: float = setting(
        0.0, group="augmentation", ge=0, le=1, description="Probability of a random rectangle; often 0.1."
    )
    mixup: float = setting(
        0.0,
        group="mixing",
        ge=0,
        description="Alpha of mixup; often 0.2. With cutmix, one or the other.",
    )
    cutmix: float = setting(0.0, group="mixing", ge=0, description="Alpha of CutMix; often 1.")

    def augmentation(self) -> Augmentation:
        """What happens to each image."""
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
        """What happens to each batch."""
        return Mixing(self.mixup, self.cutmix)


def print_notes(*datasets: Dataset) -> None:
    """Says on standard error what data sets leave out or have that is odd, each note once."""
    for text in dict.fromkeys(text for dataset in datasets for text in dataset.notes):
        note(text)
