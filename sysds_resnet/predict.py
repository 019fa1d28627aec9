"""The command that predicts the classes of images: python -m sysds_resnet.predict."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path

from sysds_resnet.batches.bad_images import BadImages
from sysds_resnet.engine import Engine
from sysds_resnet.errors import UserError, printable
from sysds_resnet.images import Dataset
from sysds_resnet.images.encoded import open_files
from sysds_resnet.images.sources.inputs import find_inputs
from sysds_resnet.scoring.ensemble import load_ensemble
from sysds_resnet.scoring.evaluation import ScoredBatch, score
from sysds_resnet.scoring.predictions import Rows, choose_format, save, to_table
from sysds_resnet.scoring.settings import PredictSettings
from sysds_resnet.scoring.spark.driver import predict_on_spark
from sysds_resnet.settings.command_line import run

STDOUT = "-"


def command(settings: PredictSettings) -> None:
    """Predicts the classes of images, and writes them into a file or to standard output."""
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
    """Gives what is written about each batch: the table of predictions, and the scores."""
    for batch in batches:
        paths = [dataset.name(i) for i in batch.indices.tolist()]
        yield to_table(paths, batch.scores, classes, top), batch.scores


def main(argv: list[str] | None = None) -> int:
    """Runs the command line, and gives the exit code."""
    return run(PredictSettings, command, argv)


if __name__ == "__main__":
    sys.exit(main())
