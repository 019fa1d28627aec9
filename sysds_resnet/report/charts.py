"""The charts of runs, which are made from metrics.jsonl alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from sysds_resnet.errors import UserError, printable
from sysds_resnet.report.metrics import FILE_NAME, read_lines

if TYPE_CHECKING:  # the import takes half a second, which a start can do without
    import pandas as pd

Axis = Literal["step", "epoch", "hours"]
AXES = {"step": "step", "epoch": "epoch", "hours": "hours since the start"}

# Petroff's ten colours, told apart with all kinds of colour vision: https://arxiv.org/abs/2107.02270.
COLORS = (
    "#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6",
    "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd",
)  # fmt: skip
BUCKETS = 1500  # a long line is divided into so many parts; the lowest and highest value of each are drawn


@dataclass(frozen=True)
class Line:
    """A line in a chart: a column of an event's table, and how it is drawn.

    Attributes:
        event: The event, by which `Run.tables` has its table: "step", "epoch" or "resources" in
            metrics.jsonl.
        column: The column of this table.
        label: The label in legends.
        dash: The style of the line; "none" for marks alone.
        mark: The mark at each value.
        faint: Whether the line is thin and half transparent, for noisy values.
        color: The index in `COLORS` for a single run; of several runs, each has a colour of its own.
    """

    event: str
    column: str
    label: str
    dash: Literal["solid", "dash", "dot", "none"] = "solid"
    mark: Literal["none", "circle", "square", "x"] = "none"
    faint: bool = False
    color: int = 0


@dataclass(frozen=True)
class Chart:
    """A chart: lines with a common axis in `unit`; values of metrics.jsonl are multiplied by `scale`."""

    title: str
    unit: str
    lines: tuple[Line, ...]
    scale: float = 1.0
    log: bool = False  # whether the axis is logarithmic; otherwise it begins at 0


def _step_and_epoch(column: str) -> tuple[Line, Line]:
    return Line("step", column, "step", faint=True), Line("epoch", column, "epoch", mark="circle")


CHARTS = (
    Chart(
        "Loss",
        "cross-entropy (nats)",
        (
            Line("step", "loss", "train, step", faint=True),
            Line("epoch", "train_loss", "train, epoch", mark="circle"),
            Line("epoch", "val_loss", "validation", "dash", "square", color=1),
        ),
        log=True,
    ),
    Chart(
        "Accuracy",
        "%",
        (
            Line("step", "top1", "top-1, train, step", faint=True),
            Line("epoch", "val_top1", "top-1, validation", "dash", "square", color=1),
            Line("epoch", "val_top5", "top-5, validation", "dot", "circle", color=2),
        ),
        scale=100,
    ),
    Chart(
        "Learning rate",
        "learning rate",
        (Line("step", "lr", "step"), Line("step", "skipped_lr", "update left out", "none", "x", color=2)),
    ),
    Chart("Gradient norm", "L2 norm", (Line("step", "grad_norm", "step"),), log=True),
    Chart("Throughput", "training images/s", _step_and_epoch("images_per_s")),
    Chart("Wait for data", "% of the time", _step_and_epoch("wait_share"), scale=100),
    Chart("CPU", "cores in use", (Line("resources", "cpu_percent", "all processes"),), scale=1 / 100),
    Chart(
        "Memory",
        "GiB",
        (
            Line("resources", "rss_bytes", "resident"),
            Line("resources", "heap_bytes", "JVM heap", "dash", color=1),
            Line("resources", "gpu_memory_bytes", "GPU", "dot", color=2),
        ),
        scale=2**-30,
    ),
    Chart("GPU", "% in use", (Line("resources", "gpu_percent", "GPU"),)),
    Chart("GPU power", "W", (Line("resources", "gpu_power_w", "GPU"),)),
)


@dataclass(frozen=True)
class Run:
    """The record of a run.

    Attributes:
        folder: The folder of the run.
        name: The name of the run in legends and tables.
        tables: The tables by event. Column "x" is the place on the axis; columns that old runs lack are
            missing.
    """

    folder: Path
    name: str
    tables: dict[str, pd.DataFrame]

    def points(self, chart: Chart, line: Line) -> tuple[np.ndarray, np.ndarray] | None:
        """Gives the places and values of a line, thinned if there are many; None if there is no value."""
        table = self.tables.get(line.event)
        if table is None or line.column not in table:
            return None
        values = table[line.column] * chart.scale
        values = values.where(np.isfinite(values) & (values > 0 if chart.log else True))
        if line.event != "step" or line.dash == "none":  # steps that are not finite leave gaps in a line
            values = values.dropna()
        if values.isna().all():
            return None
        values = _thin(values)
        return table["x"][values.index].to_numpy(), values.to_numpy()


def read_run(folder: Path, axis: Axis = "step", name: str | None = None) -> Run:
    """Reads the record of a run; an unfinished last line is left out.

    Args:
        folder: The run folder, which has a metrics.jsonl.
        axis: The unit of "x": step; epoch, with fractions; or hours since the first step began, with pauses.
        name: The name of the run; by default that of the folder.

    Raises:
        UserError: If there is no such record, or it lacks what the axis needs.
    """
    import pandas as pd  # not at the top: commands start sooner without it

    path = folder / FILE_NAME
    if not folder.is_dir():
        raise UserError(f"{folder}: found no such folder, expected a run's; check its name")
    if not path.is_file():
        raise UserError(f"{folder}: found no {FILE_NAME}, expected a run folder of sysds_resnet.train")
    try:
        lines = pd.DataFrame(read_lines(path))
        events, steps = lines["event"], pd.to_numeric(lines["step"])
    except (ValueError, TypeError, KeyError, AttributeError):
        lines = pd.DataFrame()
    if lines.empty:
        raise UserError(f"{path}: found no finished line of a run, expected one; wait for its first step")
    lines = lines.drop(columns="event").apply(pd.to_numeric, errors="coerce")
    lines["x"] = _places(path, axis, steps, events, lines)
    if {"data_wait_s", "seconds"} <= set(lines):
        lines["wait_share"] = lines["data_wait_s"] / lines["seconds"]
    if {"skipped", "lr"} <= set(lines):
        lines["skipped_lr"] = lines["lr"].where(lines["skipped"] == 1)
    tables = {event: table.reset_index(drop=True) for event, table in lines.groupby(events)}
    return Run(folder, printable(name or folder.resolve().name), tables)


def _places(path: Path, axis: Axis, steps: pd.Series, events: pd.Series, lines: pd.DataFrame) -> pd.Series:
    if axis == "step":
        return steps
    if axis == "hours":
        if "time" not in lines:
            raise UserError(f"{path}: found no times, as of a run of an older version; choose another --x")
        began = lines["time"] - (lines["seconds"].fillna(0) if "seconds" in lines else 0)
        return (lines["time"] - began.min()) / 3600
    finished = lines[events == "epoch"]
    if finished.empty:
        raise UserError(f"{path}: found no finished epoch, expected one; wait for it, or choose another --x")
    return steps * finished["epoch"].iloc[-1] / finished["step"].iloc[-1]


def _thin(values: pd.Series) -> pd.Series:
    if len(values) <= 2 * BUCKETS:
        return values
    values = values.dropna()
    groups = values.groupby(np.arange(len(values)) * BUCKETS // len(values))
    ends = [values.index[0], values.index[-1]]
    return values[np.unique(np.concatenate([groups.idxmin(), groups.idxmax(), ends]))]


def drawn(runs: Sequence[Run], charts: Sequence[Chart] = CHARTS) -> list[Chart]:
    """Gives the charts, with those of their lines, for which any of the runs has values."""
    kept = [
        replace(chart, lines=tuple(n for n in chart.lines if any(run.points(chart, n) for run in runs)))
        for chart in charts
    ]
    return [chart for chart in kept if chart.lines]


def color_of(index: int) -> str:
    """Gives the colour of one of several runs, or of a line of a single run."""
    return COLORS[index % len(COLORS)]
