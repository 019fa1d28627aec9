"""Evaluates weights on a data set: python -m sysds_resnet.evaluate."""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from pydantic import Field

from sysds_resnet.confusion import Outcomes, write_report
from sysds_resnet.data_settings import BadImages, DataSettings
from sysds_resnet.engine import Engine
from sysds_resnet.errors import UserError
from sysds_resnet.images import Dataset, EncodedDataset, open_dataset
from sysds_resnet.scoring import Ensemble, ScoringSettings, load_ensemble, score
from sysds_resnet.settings import run


class EvaluateSettings(ScoringSettings, DataSettings):
    """Computes loss, top-1 and top-5 of weights on the validation images of a data set."""

    out: Path | None = Field(
        None, description="Folder for scores, scores by class, and the confusion matrix."
    )


def check_classes(dataset: Dataset, ensemble: Ensemble, settings: EvaluateSettings) -> None:
    """Refuses a data set whose classes are not the networks'.

    Names may differ, as they do between synsets and words, but not the order of the same names.
    """
    if dataset.num_classes != ensemble.num_classes:
        raise UserError(
            f"{settings.dataset}: found {dataset.num_classes} classes, expected {ensemble.num_classes} as in "
            f"{settings.weights[0]}; evaluate on its own kind of data"
        )
    ours, theirs = ensemble.classes, dataset.classes
    if ours and ours != theirs and sorted(ours) == sorted(theirs):
        i = next(i for i, name in enumerate(ours) if theirs[i] != name)
        raise UserError(
            f"{settings.dataset}: found {theirs[i]!r} for class {i}, expected {ours[i]!r} as in "
            f"{settings.weights[0]}; put the classes into that order in classes.txt"
        )


def describe(dataset: Dataset, ensemble: Ensemble, settings: EvaluateSettings) -> dict[str, Any]:
    """What scores.json says about how scores came about."""
    return {
        "weights": settings.weights,
        "dataset": settings.dataset,
        "image_size": dataset.image_size[0],
        "resize_size": dataset.resize_size if isinstance(dataset, EncodedDataset) else None,
        "tta": settings.tta,
        "scales": settings.scales,
        "precision": ensemble.engine.multiply.precision,
    }


def command(settings: EvaluateSettings) -> None:
    """Evaluates, prints and writes."""
    if settings.out and settings.out.exists() and not settings.out.is_dir():
        raise UserError(f"{settings.out}: found a file, expected a folder or nothing; choose another --out")
    with Engine(**settings.engine_options()) as engine:
        ensemble, sizes = load_ensemble(settings, engine)
        dataset = open_dataset(settings.dataset, "val", layout=settings.layout, **sizes)
        check_classes(dataset, ensemble, settings)
        bad = BadImages(settings, settings.out or Path())
        outcomes = Outcomes(dataset.classes)
        with closing(score(ensemble, dataset, settings, bad)) as batches:
            for batch in batches:
                outcomes.add(batch.labels, batch.scores)
        details = describe(dataset, ensemble, settings)
    scores = outcomes.scores()
    print(
        f"{scores['images']} images: loss {scores['loss']:.4f}, top-1 {100 * scores['top1']:.2f} %, "
        f"top-5 {100 * scores['top5']:.2f} %"
    )
    if len(bad):
        print(f"{len(bad)} images cannot be read and were left out: {bad.path}")
    if settings.out:
        write_report(settings.out, outcomes, {"left_out": len(bad), **details})
        print(f"scores: {settings.out}")


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    return run(EvaluateSettings, command, argv)


if __name__ == "__main__":
    sys.exit(main())
