"""The outcomes of networks on labelled images, computed on this machine or on a Spark cluster."""

from __future__ import annotations

from contextlib import closing
from typing import Any

from sysds_resnet.batches.bad_images import BadImages
from sysds_resnet.classes.comparison import check_class_names
from sysds_resnet.engine import Engine
from sysds_resnet.errors import UserError
from sysds_resnet.images import Dataset, EncodedDataset, open_dataset
from sysds_resnet.images.settings import print_notes
from sysds_resnet.scoring.ensemble import load_ensemble
from sysds_resnet.scoring.evaluation import score
from sysds_resnet.scoring.outcomes import Outcomes
from sysds_resnet.scoring.settings import EvaluateSettings
from sysds_resnet.scoring.spark.driver import gather_networks, outcomes_of
from sysds_resnet.system.console import note


def check_classes(dataset: Dataset, classes: list[str] | int, settings: EvaluateSettings) -> None:
    """Refuses a data set whose classes are not those of the networks.

    `classes` are the networks' class names, or the number of classes if these have no names. Names may simply
    be other ones for the same classes, as synsets and words are, which a note then says.
    """
    number = classes if isinstance(classes, int) else len(classes)
    if dataset.num_classes != number:
        raise UserError(
            f"{settings.dataset}: found {dataset.num_classes} classes, expected {number} as in "
            f"{settings.weights[0]}; evaluate on its own kind of data"
        )
    if not isinstance(classes, int):
        advice = "give the data set the weights' names in their order, in its folders or classes.txt"
        text = check_class_names(dataset.classes, classes, settings.dataset, settings.weights[0], advice)
        if text:
            note(text)


def describe(dataset: Dataset, precision: str, settings: EvaluateSettings) -> dict[str, Any]:
    """Gives what scores.json says about how scores came about."""
    return {
        "weights": settings.weights,
        "dataset": settings.dataset,
        "image_size": dataset.image_size[0],
        "resize_size": dataset.resize_size if isinstance(dataset, EncodedDataset) else None,
        "tta": settings.tta,
        "scales": settings.scales,
        "precision": precision,
    }


def outcomes_here(settings: EvaluateSettings, bad: BadImages) -> tuple[Outcomes, dict[str, Any]]:
    """Computes the outcomes of all images that can be read, and gives them with what `describe` says."""
    with Engine(**settings.engine_options()) as engine:
        ensemble, sizes = load_ensemble(settings, engine)
        dataset = _open(settings, sizes, ensemble.classes or ensemble.num_classes)
        outcomes = Outcomes(dataset.classes)
        with closing(score(ensemble, dataset, settings, bad)) as batches:
            for batch in batches:
                outcomes.add(batch.labels, batch.scores)
        return outcomes, describe(dataset, ensemble.engine.multiply.precision, settings)


def outcomes_on_spark(settings: EvaluateSettings, bad: BadImages) -> tuple[Outcomes, dict[str, Any]]:
    """Does what `outcomes_here` does by the executors of a Spark cluster, each of which reads its images."""
    networks, classes = gather_networks(settings, 1)
    dataset = _open(settings, networks.sizes, classes)
    outcomes, precisions = Outcomes(dataset.classes), set()
    for part in outcomes_of(settings.cluster(), networks, dataset):
        for index, reason in part.errors:
            bad(dataset, index, reason)
        precisions.add(part.precision)
        outcomes.add_rows(part.rows)
    return outcomes, describe(dataset, " and ".join(sorted(precisions)), settings)


def _open(settings: EvaluateSettings, sizes: dict[str, int | None], classes: list[str] | int) -> Dataset:
    dataset = open_dataset(settings.located(settings.engine == "spark"), "val", **settings.where(), **sizes)
    print_notes(dataset)
    check_classes(dataset, classes, settings)
    return dataset
