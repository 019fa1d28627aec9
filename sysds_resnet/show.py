"""The command that draws the images as the network will get them: python -m sysds_resnet.show."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sysds_resnet.batches.bad_images import BadImages
from sysds_resnet.batches.readers import Readers
from sysds_resnet.batches.settings import ReadingSettings
from sysds_resnet.batches.stream import BatchStream
from sysds_resnet.classes.labels import MixedLabels
from sysds_resnet.errors import NoSuchSplit, UserError, printable
from sysds_resnet.images import Dataset
from sysds_resnet.images.settings import AugmentationSettings, DataSettings, print_notes
from sysds_resnet.images.sources.files import Split
from sysds_resnet.settings.command_line import build, run
from sysds_resnet.settings.fields import setting
from sysds_resnet.system.console import say
from sysds_resnet.system.extras import extra
from sysds_resnet.system.files import check_place
from sysds_resnet.training.settings import TrainSettings
from sysds_resnet.training.start import open_set, open_training

COLUMNS = 8
NAME_LENGTH = 18


class ShowSettings(ReadingSettings, AugmentationSettings, DataSettings):
    """Writes a contact sheet of images as the network gets them, after augmentation, with their labels."""

    split: Split = setting(
        "train", group="data", common=True, description="The split: train, or val, which is not augmented."
    )
    images: int = setting(
        32,
        group="data",
        common=True,
        ge=1,
        le=400,
        description="The number of images on the sheet, drawn at random.",
    )
    image_size: int | None = setting(
        None,
        group="data",
        common=True,
        ge=32,
        description="The side of the images in pixels; by default the one that sysds_resnet.train chooses.",
    )
    resize_size: int | None = setting(
        None,
        group="data",
        ge=32,
        description="The shorter side of val images before the crop, as for sysds_resnet.train.",
    )
    seed: int = setting(
        42,
        group="data",
        ge=0,
        lt=2**31,
        description="The seed of the choice of images and of their augmentation.",
    )
    epoch: int = setting(
        1, group="data", common=True, ge=1, description="The epoch whose augmentation is shown, from 1."
    )
    out: Path = setting(Path("images.png"), group="output", common=True, description="The PNG file to write.")


_OF_TRAINING = ShowSettings.model_fields.keys() & TrainSettings.model_fields.keys() - {"out"}


def draw(images: np.ndarray, titles: Sequence[str], path: Path) -> None:
    """Writes images, uint8 of shape (n, H, W, 3), with a title above each, as a PNG."""
    with extra("plots", "pictures"):
        from matplotlib.figure import Figure  # the import takes half a second, which --help can do without

    columns = min(COLUMNS, len(images))
    rows = math.ceil(len(images) / columns)
    figure = Figure(figsize=(1.7 * columns, 1.9 * rows), layout="constrained")
    for axes in (grid := figure.subplots(rows, columns, squeeze=False)).flat:
        axes.axis("off")
    for axes, image, title in zip(grid.flat, images, titles, strict=False):
        axes.imshow(image)
        axes.set_title(title, fontsize=7, parse_math=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png", dpi=150)


def command(settings: ShowSettings) -> None:
    """Reads images, mixes them as training does, and draws them."""
    check_place(settings.out)
    settings, dataset = _as_trained(settings)
    print_notes(dataset)
    n, epoch = len(dataset), settings.epoch - 1
    order = np.random.default_rng(settings.seed).permutation(n)
    with (
        Readers([dataset], settings.workers) as readers,
        BatchStream(
            dataset,
            lambda _: order,
            min(settings.images, n),
            readers,
            drop_last=settings.split == "train",
            start_epoch=epoch,
            prefetch=0,
            on_error=BadImages(settings, settings.out.parent),
        ) as stream,
    ):
        batch = next(stream)
    images, labels = batch.images, batch.labels
    if not len(images):
        raise UserError("images: found none that can be read: check the data set")
    if settings.split == "train" and settings.mixing():
        images, labels = settings.mixing().apply(images, labels, settings.seed, epoch, batch.step)
    draw(images, titles(labels, dataset.classes), settings.out)
    text = f"{settings.out}: {len(images)} {settings.split} images of {dataset.image_size[0]} pixels"
    print(printable(text))


def _as_trained(settings: ShowSettings) -> tuple[ShowSettings, Dataset]:
    """Opens the images as training does, and gives them with the settings that it would choose for them."""
    given = {name: getattr(settings, name) for name in settings.model_fields_set & _OF_TRAINING}
    wanted = build(TrainSettings, given)
    try:
        wanted, training, choice = open_training(wanted)
    except NoSuchSplit:
        if settings.split == "train":
            raise
        return settings, open_set(wanted, "val")
    chosen = {
        name: value for name, value in (choice.values if choice else {}).items() if name in _OF_TRAINING
    }
    if chosen:
        say(choice.explain(chosen))
    settings = settings.model_copy(update=chosen)
    return settings, training if settings.split == "train" else open_set(wanted, "val")


def titles(labels: np.ndarray | MixedLabels, classes: Sequence[str]) -> list[str]:
    """Gives the title of each image: its class, or those that it is mixed of with their shares."""
    if not isinstance(labels, MixedLabels):
        return [_short(classes[label], NAME_LENGTH) for label in labels]
    half = NAME_LENGTH // 2
    return [
        f"{share:.2f} {_short(classes[own], half)} + {1 - share:.2f} {_short(classes[other], half)}"
        for own, other, share in zip(labels.own, labels.other, labels.share, strict=True)
    ]


def _short(name: str, length: int) -> str:
    return printable(name)[:length]


def main(argv: list[str] | None = None) -> int:
    """Runs the command line, and gives the exit code."""
    return run(ShowSettings, command, argv)


if __name__ == "__main__":
    sys.exit(main())
