"""Evaluates weights on a data set: python -m sysds_resnet.evaluate."""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from pydantic import Field

from sysds_resnet.classes.comparison import check_class_names
from sysds_resnet.engine import Engine
from sysds_resnet.engine.spark.settings import SparkSettings
from sysds_resnet.errors import UserError, printable
from sysds_resnet.images import Dataset, EncodedDataset, open_dataset
from sysds_resnet.images.settings import BadImages, DataSettings, print_notes
from sysds_resnet.scoring.ensemble import ScoringSettings, load_ensemble, score
from sysds_resnet.scoring.outcomes import Outcomes, write_report
from sysds_resnet.scoring.spark.driver import gather_networks, outcomes_of
from sysds_resnet.settings.command_line import run
from sysds_resnet.system.console import note


class EvaluateSettings(SparkSettings, ScoringSettings, DataSettings):
    """Computes loss, top-1 and top-5 of weights on the validation images of a data set."""

    out: Path | None = Field(
        None, description="Folder for scores, scores by class, and the confusion matrix."
    )


def check_classes(dataset: Dataset, classes: list[str] | int, settings: EvaluateSettings) -> None:
    """Refuses a data set whose classes are not the networks': names, or their number if they have none.

    Names may differ, as they do between synsets and words, which a note says; see `check_class_names`.
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
    """What scores.json says about how scores came about."""
    return {
        "weights": settings.weights,
        "dataset": settings.dataset,
        "image_size": dataset.image_size[0],
        "resize_size": dataset.resize_size if isinstance(dataset, EncodedDataset) else None,
        "tta": settings.tta,
        "scales": settings.scales,
        "precision": precision,
    }


def command(settings: EvaluateSettings) -> None:
    """Evaluates, prints and writes."""
    settings.check_cluster()
    if settings.out and settings.out.exists() and not settings.out.is_dir():
        raise UserError(f"{settings.out}: found a file, expected a folder or nothing; choose another --out")
    bad = BadImages(settings, settings.out or Path())
    by = _outcomes_on_spark if settings.engine == "spark" else _outcomes_here
    outcomes, details = by(settings, bad)
    scores = outcomes.scores()
    print(
        f"{scores['images']} images: loss {scores['loss']:.4f}, top-1 {100 * scores['top1']:.2f} %, "
        f"top-5 {100 * scores['top5']:.2f} %"
    )
    if len(bad):
        print(printable(f"{len(bad)} images cannot be read and were left out: {bad.path}"))
    if settings.out:
        write_report(settings.out, outcomes, {"left_out": len(bad), **details})
        print(printable(f"scores: {settings.out}"))


def _outcomes_here(settings: EvaluateSettings, bad: BadImages) -> tuple[Outcomes, dict[str, Any]]:
    """Outcomes of all images that can be read, and what `describe` says of them."""
    with Engine(**settings.engine_options()) as engine:
        ensemble, sizes = load_ensemble(settings, engine)
        dataset = _open(settings, sizes, ensemble.classes or ensemble.num_classes)
        outcomes = Outcomes(dataset.classes)
        with closing(score(ensemble, dataset, settings, bad)) as batches:
            for batch in batches:
                outcomes.add(batch.labels, batch.scores)
        return outcomes, describe(dataset, ensemble.engine.multiply.precision, settings)


def _outcomes_on_spark(settings: EvaluateSettings, bad: BadImages) -> tuple[Outcomes, dict[str, Any]]:
    """As `_outcomes_here`, by executors, each of which reads its images."""
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
    dataset = open_dataset(settings.located(settings.dataset), "val", layout=settings.layout, **sizes)
    print_notes(dataset)
    check_classes(dataset, classes, settings)
    return dataset


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    return run(EvaluateSettings, command, argv)


if __name__ == "__main__":
    sys.exit(main())
