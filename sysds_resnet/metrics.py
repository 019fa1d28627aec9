"""The record of a run: metrics.jsonl, one JSON object a line."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from sysds_resnet.errors import one_line
from sysds_resnet.files import write_whole

FILE_NAME = "metrics.jsonl"


class MetricsFile:
    """Appends lines to a run's metrics.jsonl, from any thread.

    A disk that does not take them does not end the run: they wait in memory for the next line.

    Args:
        folder: The run folder.
        step: Lines of later steps are dropped first: a run that resumes from this step writes them anew.
        evaluated: Whether the epoch that this step ends was evaluated; otherwise its line is dropped too.
        note: Told once of a disk that does not take a line.
    """

    def __init__(
        self,
        folder: Path,
        step: int = 0,
        evaluated: bool = True,
        note: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._path, self._note = folder / FILE_NAME, note
        self._lock = threading.Lock()
        self._waiting: list[str] = []
        self._size = 0  # bytes that are known to be whole lines
        if self._path.exists():
            kept = [
                line
                for line in read_lines(self._path)
                if line["step"] < step or (line["step"] == step and (evaluated or line["event"] != "epoch"))
            ]
            text = "".join(json.dumps(line) + "\n" for line in kept)
            write_whole({self._path: lambda temporary: temporary.write_text(text)})
            self._size = self._path.stat().st_size

    def write(self, event: str, **values: Any) -> None:
        """Appends one line, with the time; numbers that are not finite become null.

        Args:
            event: What the line is about.
            values: At least "step".
        """
        line = {"event": event, "time": time.time(), **values}
        finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in line.items()}
        with self._lock:
            self._waiting.append(json.dumps(finite) + "\n")
            try:
                self._append("".join(self._waiting).encode())
            except OSError as error:
                if len(self._waiting) == 1:
                    self._note(f"{self._path}: not written ({one_line(error)}); its lines wait in memory")
                return
            self._waiting = []

    def _append(self, text: bytes) -> None:
        with open(self._path, "ab") as file:
            file.truncate(self._size)  # what a full disk took of a line
            file.write(text)
        self._size += len(text)


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
    """The lines of one event ("step", "epoch" or "resources") of a run folder as a table."""
    return pd.DataFrame([line for line in read_lines(folder / FILE_NAME) if line["event"] == event])
