"""Predicts the classes of images: python -m sysds_resnet.predict."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path

from pydantic import Field

from sysds_resnet.engine import Engine
from sysds_resnet.engine.spark.settings import SparkSettings
from sysds_resnet.errors import UserError, printable
from sysds_resnet.images import Dataset
from sysds_resnet.images.encoded import open_files
from sysds_resnet.images.settings import BadImages
from sysds_resnet.images.sources.inputs import find_inputs
from sysds_resnet.scoring.ensemble import ScoredBatch, ScoringSettings, load_ensemble, score
from sysds_resnet.scoring.predictions import Format, Rows, choose_format, save, to_table
from sysds_resnet.scoring.spark.driver import predict_on_spark
from sysds_resnet.settings.command_line import run

STDOUT = "-"


class PredictSettings(SparkSettings, ScoringSettings):
    """Writes the most probable classes of images, in the order of the inputs; those of folders are sorted."""

    input: list[str] = Field(
        min_length=1,
        description="One or more images, folders that are searched for images, .txt files with a path in "
        'each line, or "-" for such lines on standard input. With engine spark: folders, and .parquet tables '
        "with image files in a column, as paths or URLs.",
    )
    out: str = Field(
        "predictions.csv",
        description='File for predictions, .csv, .jsonl or .parquet, or "-" for standard output; with engine '
        "spark, a folder of parquet files.",
    )
    format: Format | None = Field(None, description="Of out; by default by its ending, csv if it has none.")
    top: int = Field(5, ge=1, description="Classes of each image.")
    logits: Path | None = Field(None, description=".npy file for the scores, of shape (images, classes).")


def command(settings: PredictSettings) -> None:
    """Predicts and writes."""
    if settings.engine == "spark":
        predict_on_spark(settings)
        return
    kind = choose_format(settings.out, settings.format)
    out = None if settings.out == STDOUT else Path(settings.out)
    if settings.logits and settings.logits == out:
        raise UserError(f"{out}: found as --out and as --logits, expected two files; choose another")
    paths = find_inputs(settings.input)
    with Engine(**settings.engine_options()) as engine:
        ensemble, sizes = load_ensemble(settings, engine)
        dataset = open_files(paths, **sizes)
        bad = BadImages(settings, out.parent if out else Path())
        with closing(score(ensemble, dataset, settings, bad)) as batches:
            n = save(to_rows(batches, dataset, ensemble.classes, settings.top), out, kind, settings.logits)
    if len(bad):
        text = f"{len(bad)} images cannot be read and were left out: {bad.path}"
        print(printable(text), file=sys.stdout if out else sys.stderr)
    if out:
        print(printable(f"{n} images: {out}"))


def to_rows(
    batches: Iterable[ScoredBatch], dataset: Dataset, classes: list[str] | None, top: int
) -> Iterator[Rows]:
    """What is written of each batch."""
    for batch in batches:
        paths = [dataset.name(i) for i in batch.indices.tolist()]
        yield to_table(paths, batch.scores, classes, top), batch.scores


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    return run(PredictSettings, command, argv)


if __name__ == "__main__":
    sys.exit(main())
