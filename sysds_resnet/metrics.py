"""The record of a run: metrics.jsonl, one JSON object a line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from sysds_resnet.files import write_whole

FILE_NAME = "metrics.jsonl"


class MetricsFile:
    """Appends lines to a run's metrics.jsonl.

    Args:
        folder: The run folder.
        step: Lines of later steps are dropped first: a run that resumes from this step writes them anew.
    """

    def __init__(self, folder: Path, step: int = 0) -> None:
        self._path = folder / FILE_NAME
        if self._path.exists():
            kept = [line for line in read_lines(self._path) if line["step"] <= step]
            text = "".join(json.dumps(line) + "\n" for line in kept)
            write_whole({self._path: lambda temporary: temporary.write_text(text)})

    def write(self, event: str, **values: Any) -> None:
        """Appends one line; `values` hold at least "step"."""
        with open(self._path, "a") as file:
            file.write(json.dumps({"event": event, **values}) + "\n")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics file; an unfinished last line, from a killed run, is left out."""
    lines = []
    for text in path.read_text().splitlines():
        try:
            lines.append(json.loads(text))
        except ValueError:
            break
    return lines


def read_metrics(folder: Path, event: str) -> pd.DataFrame:
    """The lines of one event ("step" or "epoch") of a run folder as a table."""
    return pd.DataFrame([line for line in read_lines(folder / FILE_NAME) if line["event"] == event])
