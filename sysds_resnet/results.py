"""The command that prints results of finished runs as tables: python -m sysds_resnet.results RUN [RUN ...].

Everything comes from a run folder's config.yaml and metrics.jsonl; what these do not hold is "not measured".
A card is a share of the batch with batch-norm statistics of its own, which is a micro-batch.
"""

from __future__ import annotations

import sys
from pathlib import Path

from sysds_resnet.report.result_tables import (
    tables,
    write_results,
)
from sysds_resnet.report.results import results_row
from sysds_resnet.settings.base import Settings
from sysds_resnet.settings.command_line import run
from sysds_resnet.settings.fields import setting


class ResultsSettings(Settings):
    """Prints the results of runs as two tables, and writes results.json and results.md into each folder."""

    runs: list[Path] = setting(
        positional=True, group="input", min_length=1, value="RUN", description="The run folders."
    )
    baseline: Path | None = setting(
        None,
        group="input",
        value="RUN",
        description="The folder of a run on one card, for the scalability of runs of the same network, image "
        "size and precision.",
    )


def command(settings: ResultsSettings) -> None:
    """Computes the results, writes them into the run folders, and prints the tables."""
    baseline = settings.baseline and results_row(settings.baseline)
    found = [results_row(folder, baseline) for folder in settings.runs]
    for folder, results in zip(settings.runs, found, strict=True):
        write_results(folder, results)
    print(tables(found))


def main(argv: list[str] | None = None) -> int:
    """Runs the command line, and gives the exit code."""
    return run(ResultsSettings, command, argv)


if __name__ == "__main__":
    sys.exit(main())
