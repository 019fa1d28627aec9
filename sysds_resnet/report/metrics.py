"""The record of a run: metrics.jsonl, with one JSON object in each line."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sysds_resnet.errors import one_line
from sysds_resnet.system.files import write_whole

if TYPE_CHECKING:
    import pandas as pd

FILE_NAME = "metrics.jsonl"

# The names of figures in TensorBoard and MLflow, by event and name; all numbers of "resources" are figures.
_FIGURES = {
    "step": {
        name: f"train/{name}" for name in ("loss", "top1", "lr", "grad_norm", "images_per_s", "data_wait_s")
    },
    "epoch": {
        "train_loss": "epoch/train_loss",
        "val_loss": "val/loss",
        "val_top1": "val/top1",
        "val_top5": "val/top5",
    },
}
_NO_FIGURES = ("step", "time")


class MetricsFile:
    """The metrics.jsonl of a run, to which any thread may append lines.

    If the disk does not take lines, the run goes on, and they wait in memory for the next one.

    Args:
        folder: The run folder.
        step: The step from which the run goes on. Lines of later steps are dropped, as they are written anew.
        evaluated: Whether the epoch that this step ends was evaluated; otherwise its line is dropped, too.
        note: A function that is told once of a disk that does not take a line, and of damaged lines, which
            are dropped.
    """

    def __init__(
        self,
        folder: Path,
        step: int = 0,
        evaluated: bool = True,
        note: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._path, self._note = folder / FILE_NAME, note
        self._last, self._evaluated = step, evaluated
        self._lock = threading.Lock()
        self._waiting: list[str] = []
        self._noted = False
        self._size: int | None = None  # bytes that are known to be whole lines
        with self._lock:
            self._try(self._begin)

    def write(self, event: str, **values: Any) -> None:
        """Appends one line, with the time; numbers that are not finite become null.

        Args:
            event: The event that the line is about.
            values: The values of the line by name, "step" among them.
        """
        line = {"event": event, "time": time.time(), **values}
        finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in line.items()}
        with self._lock:
            self._waiting.append(json.dumps(finite) + "\n")
            self._try(self._append)

    def _try(self, do: Callable[[], None]) -> None:
        try:
            do()
            self._noted = False
        except OSError as error:
            if not self._noted:
                self._note(f"{self._path}: not written ({one_line(error)}); its lines wait in memory")
            self._noted = True

    def _begin(self) -> None:
        """Drops the lines that the run writes anew, and damaged ones."""
        size = 0
        if self._path.exists():
            data = self._path.read_bytes()
            kept, damaged = self._kept(data)
            if kept != data:
                write_whole({self._path: lambda temporary: temporary.write_bytes(kept)})
            if damaged:
                self._note(f"{self._path}: {damaged} damaged {'line' if damaged == 1 else 'lines'} dropped")
            size = len(kept)
        self._size = size

    def _kept(self, data: bytes) -> tuple[bytes, int]:
        """Gives the lines that stay, and the number of damaged ones, without an unfinished last one."""
        lines = data.splitlines(keepends=True)
        parsed = [_parse(line) for line in lines]
        kept = b"".join(
            line for line, values in zip(lines, parsed, strict=True) if values and self._before(values)
        )
        unfinished = bool(lines) and not lines[-1].endswith(b"\n") and parsed[-1] is None
        return kept + b"\n" * (kept[-1:] not in (b"", b"\n")), parsed.count(None) - unfinished

    def _before(self, line: dict[str, Any]) -> bool:
        """Tells whether a line is about what was done before the point from which the run goes on."""
        ends_here = line["step"] == self._last and (self._evaluated or line["event"] != "epoch")
        return line["step"] < self._last or ends_here

    def _append(self) -> None:
        if self._size is None:
            self._begin()
        text = "".join(self._waiting).encode()
        with open(self._path, "ab") as file:
            file.truncate(self._size)  # drops the part of a line that a full disk took
            file.write(text)
        self._size += len(text)
        self._waiting = []


def scalars(event: str, values: Mapping[str, Any]) -> dict[str, float]:
    """Gives the figures in a line of metrics.jsonl by the names that they have in TensorBoard and MLflow.

    Args:
        event: The event of the line: "step", "epoch" or "resources"; others have none.
        values: The values of the line by name; None is left out.
    """
    if event == "resources":
        names = {name: f"resources/{name}" for name in values if name not in _NO_FIGURES}
    else:
        names = _FIGURES.get(event, {})
    return {tag: values[name] for name, tag in names.items() if values.get(name) is not None}


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Reads the lines of a metrics file, without damaged and unfinished ones, which killed runs leave."""
    return [line for line in map(_parse, path.read_bytes().splitlines()) if line is not None]


def _parse(line: bytes) -> dict[str, Any] | None:
    """Gives the values in a line, which have an event and a step; None if it is no such line."""
    try:
        values = json.loads(line)
    except ValueError:  # it is no JSON, or no UTF-8
        return None
    is_line = isinstance(values, dict) and isinstance(values.get("event"), str)
    return values if is_line and isinstance(values.get("step"), int) else None


def read_metrics(folder: Path, event: str) -> pd.DataFrame:
    """Reads the lines of one event ("step", "epoch" or "resources") from a run folder as a table."""
    import pandas as pd  # not at the top: commands start sooner without it

    return pd.DataFrame([line for line in read_lines(folder / FILE_NAME) if line["event"] == event])
