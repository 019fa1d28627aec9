"""The start of a training run: its data, its weights, its settings for this machine, and its first words."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sysds_resnet.classes.comparison import compare_class_names, describe_difference
from sysds_resnet.engine import Engine
from sysds_resnet.engine.jvm.memory import default_heap
from sysds_resnet.errors import NoSuchSplit, UserError
from sysds_resnet.images import Dataset, EncodedDataset, SyntheticDataset, open_dataset
from sysds_resnet.network.model import Model
from sysds_resnet.network.names import Weights, infer_backbone, is_body
from sysds_resnet.network.weights.forms import load_weights
from sysds_resnet.settings.command_line import build
from sysds_resnet.system.console import note, warn
from sysds_resnet.training.defaults import FEW_STEPS, Choice, choose
from sysds_resnet.training.micro_batch import choose_micro_batch, expected_heap
from sysds_resnet.training.optimizer import Optimizer
from sysds_resnet.training.processes.group import Group
from sysds_resnet.training.progress import Progress
from sysds_resnet.training.settings import TrainSettings


def open_engine(
    settings: TrainSettings, options: Mapping[str, Any], dataset: Dataset, processes: int = 1
) -> Engine:
    """Opens the engine of a process of a run, with as much heap at the start as the run should need.

    Args:
        settings: The settings of the run, before they are resolved.
        options: The other arguments for the engine.
        dataset: The training images.
        processes: The number of processes that train together.

    Raises:
        UserError: If the engine does not start.
    """
    initial = None
    if not options["gpus"]:
        heap = options["heap"] or default_heap()
        initial = expected_heap(settings, heap, dataset.image_size, processes)
    return Engine(**options, initial_heap=initial)


def starting_model(settings: TrainSettings, dataset: Dataset, engine: Engine) -> tuple[Model, str | None]:
    """Makes a fresh model for a data set, or one with the weights to start from; tells where these come from.

    The final layer is a new one if the weights have none that fits, or if their classes are not those of the
    data set in the same order.

    Raises:
        UserError: If the weights belong to another network.
    """
    model = Model(
        settings.depth,
        dataset.num_classes,
        dataset.channels,
        settings.seed,
        settings.zero_init_residual,
        engine,
        dataset.mean,
        dataset.std,
        dataset.classes,
    )
    path = settings.init_from
    if path is None:
        return model, None
    weights, metadata, notes = load_weights(path, engine)
    for text in notes:
        note(text)
    found = infer_backbone(weights, str(path))
    if (found.depth, found.channels) != (settings.depth, dataset.channels):
        raise UserError(
            f"{path}: found weights of resnet{found.depth} for {found.channels} channels, expected "
            f"{settings.model} for {dataset.channels}; choose --model resnet{found.depth} or other weights"
        )
    origin = str(path)
    if reason := _new_layer(weights, metadata.get("classes"), dataset, origin):
        fresh = {name: array for name, array in model.state_dict().items() if name.startswith("fc.")}
        weights = {name: array for name, array in weights.items() if is_body(name)} | fresh
        origin += f", but for a new final layer: {reason}"
    model.load_state_dict(weights, str(path))
    if metadata.get("mean"):
        model.set_preprocessing(metadata["mean"], metadata["std"], dataset.classes)
    return model, origin


def _new_layer(weights: Weights, classes: list[str] | None, dataset: Dataset, source: str) -> str | None:
    """Tells why the final layer of weights cannot be that of a data set; None if it can."""
    number = dataset.num_classes
    rest = sorted(name for name in weights if not is_body(name))
    if "fc.weight" not in weights:
        what = f"its {rest[0].rpartition('.')[0]!r}" if rest else "a backbone without one"
        return f"{number} classes for {what}"
    count = len(weights["fc.weight"])
    if count != number:
        return f"{number} classes for its {count}"
    difference = compare_class_names(dataset.classes, classes) if classes else None
    if difference:
        text = describe_difference(difference, "the data", "the weights")
        return f"{number} classes for its {count} others ({text})"
    if classes is None:
        note(f"{source}: has no class names; its final layer is taken to be for the classes of the data set")
    return None


def sizes_of(settings: TrainSettings, dataset: Dataset) -> dict[str, Any]:
    """Gives the sizes of images that an evaluation of the weights must know."""
    sizes = {"image_size": list(dataset.image_size), "resize_size": settings.resize_size}
    return {name: value for name, value in sizes.items() if value is not None}


def introduction(
    settings: TrainSettings,
    folder: Path,
    engine: Engine,
    sets: list[Dataset],
    origin: Path | str | None,
    step: int,
    processes: int = 1,
) -> str:
    """Gives the text that a run prints first.

    Args:
        settings: The settings of the run, resolved.
        folder: The folder of the run.
        engine: The engine of this process.
        sets: The training and the validation images.
        origin: Where weights that are not fresh come from.
        step: The number of steps that are done.
        processes: The number of processes that train together.
    """
    height, width = sets[0].image_size
    batch = f"batch {settings.batch_size}"
    if settings.micro_batch < settings.batch_size:
        batch += f" in micro-batches of {settings.micro_batch}"
    network = f"{settings.model}, {settings.optimizer}, {batch}, {settings.epochs} epochs"
    if settings.frozen_parts:
        network += f"; not trained: {', '.join(settings.frozen_parts)}"
    steps_per_epoch, left_out = divmod(len(sets[0]), settings.batch_size)
    steps = f"{steps_per_epoch} in an epoch, {settings.epochs * steps_per_epoch} in all"
    if left_out:
        steps += f"; {left_out} images do not fill a batch and are left out, others in each epoch"
    lines = [
        f"run:     {folder}{f', from step {step}' if step else ''}",
        f"data:    {settings.dataset}, {len(sets[0])} training and {len(sets[1])} validation images of "
        f"{height} x {width}, {sets[0].num_classes} classes",
        f"network: {network}",
        f"steps:   {steps}",
        f"engine:  {f'{processes} processes, each with ' if processes > 1 else ''}{engine.describe()}",
    ]
    if origin is not None:
        lines.insert(3, f"weights: {origin}")
    return "\n".join(lines)


def new_length(optimizer: Optimizer, progress: Progress, engine: Engine) -> str:
    """Says what another number of epochs makes of the learning rate of a run that goes on."""
    schedule = optimizer.schedule
    if progress.step >= schedule.total_steps:
        return f"length:  {schedule.epochs} epochs now, which are done"
    rate = schedule.rates(engine)[progress.step]
    return (
        f"length:  {schedule.epochs} epochs now; the learning rate goes on at {rate:.4g}, as if the run had "
        f"been planned so, where its last step had {progress.lr:.4g}"
    )


def open_set(settings: TrainSettings, split: Literal["train", "val"]) -> Dataset:
    """Opens the training or validation images of a run."""
    training = split == "train"
    try:
        return open_dataset(
            settings.located(settings.engine == "spark"),
            split,
            **settings.where(),
            image_size=settings.image_size if training else settings.eval_size or settings.image_size,
            resize_size=settings.resize_size,
            augmentation=settings.augmentation(),
            seed=settings.seed,
            num_images=settings.num_images if training else None,
            num_classes=settings.num_classes,
        )
    except NoSuchSplit as error:
        if training:
            raise
        raise NoSuchSplit(f"{error}, or take a share of the training images with --val-split 0.1") from error


def open_sets(settings: TrainSettings) -> tuple[TrainSettings, list[Dataset], str | None]:
    """Opens the training and validation images of a run, and chooses settings that suit them.

    Returns:
        The settings with those that were chosen, the two data sets, and what to say of the choice if there
        was one.
    """
    settings, training, choice = open_training(settings)
    return settings, [training, open_set(settings, "val")], choice and choice.explain()


def open_training(settings: TrainSettings) -> tuple[TrainSettings, Dataset, Choice | None]:
    """Opens the training images of a run, and chooses settings that suit them.

    Returns:
        The settings with those that were chosen, the training images, and the choice if there was one.
    """
    training = open_set(settings, "train")
    side = training.typical_side() if isinstance(training, EncodedDataset) else None
    choice = choose(settings, len(training), side)
    if not choice:
        return settings, training, None
    given = {name: getattr(settings, name) for name in settings.model_fields_set}
    settings = build(TrainSettings, {**given, **choice.values})
    if isinstance(training, EncodedDataset):
        size = settings.image_size or training.image_size[0]
        training = training.for_training(size, settings.augmentation())
    return settings, training, choice


def resolve(
    settings: TrainSettings, engine: Engine, dataset: Dataset, depth: int, group: Group | None = None
) -> TrainSettings:
    """Replaces defaults by what depends on the machine and the data: the micro-batch and the image size.

    Args:
        settings: The settings to resolve.
        engine: The engine that computes.
        dataset: The training images.
        depth: The depth of the network.
        group: The processes that train together, which all get the same settings; by default this one alone.

    Raises:
        UserError: If the settings do not fit the data.
    """
    if settings.batch_size > len(dataset):
        raise UserError(
            f"batch_size: found {settings.batch_size} for {len(dataset)} training images, expected at most "
            "their number; choose a smaller one"
        )
    steps = settings.epochs * (len(dataset) // settings.batch_size)
    if settings.profile is not None and settings.profile >= steps:
        raise UserError(
            f"profile: found {settings.profile} for a run of {steps} steps, expected fewer than that; choose "
            "fewer, or train for more epochs"
        )
    asked = None if settings.micro_batch == "auto" else settings.micro_batch
    group = group or Group()
    micro_batch = choose_micro_batch(
        engine, depth, dataset.image_size, settings.batch_size, asked, group.size
    )
    micro_batch = min(map(int, group.gather(str(micro_batch))))  # of the machine with the least memory
    return settings.model_copy(update={"micro_batch": micro_batch, "image_size": dataset.image_size[0]})


def warn_of_few_steps(settings: TrainSettings, images: int) -> None:
    """Warns of a run of so few steps that it learns next to nothing."""
    steps = settings.epochs * (images // settings.batch_size)
    if steps < FEW_STEPS and settings.dataset != "synthetic":
        warn(
            f"steps: found {steps} in all, expected {FEW_STEPS} or more, or hardly anything is learned; "
            "choose more --epochs or a smaller --batch-size"
        )


def warn_of_chance(top1: float | None, dataset: Dataset) -> None:
    """Warns of a validation that is no better than naming the most frequent class for every image."""
    share = np.bincount(dataset.labels).max() / len(dataset)
    if top1 is not None and top1 <= share and not isinstance(dataset, SyntheticDataset):
        warn(
            f"validation: found {100 * top1:.2f} % top-1, expected more than the {100 * share:.2f} % of "
            "always naming the most frequent class; look at the images by the command show, and try a lower "
            "--base-lr, more --epochs, or weights to start from (--init-from)"
        )


def warn_of_small_norms(settings: TrainSettings) -> None:
    """Warns of micro-batches of one image, with which norms learn nothing that holds for other images."""
    if settings.micro_batch > 1:
        return
    mend = "choose a larger --batch-size"
    if settings.batch_size > 1:
        mend = "give it more memory with --heap, or choose a larger --micro-batch"
    warn(
        "micro_batch: found 1 image, expected several: in training, norms take mean and variance of each "
        f"image by itself, in validation those over all, so that accuracy suffers; {mend}"
    )
