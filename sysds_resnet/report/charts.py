"""The charts of runs, which are made from metrics.jsonl alone, and pictures of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from sysds_resnet.errors import UserError, printable
from sysds_resnet.report.metrics import FILE_NAME, read_lines
from sysds_resnet.system.extras import extra
from sysds_resnet.system.files import write_whole

if TYPE_CHECKING:  # the import takes half a second, which a start can do without
    import pandas as pd
    from matplotlib.axes import Axes

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


def plot_curves(folder: Path, title: str) -> Path:
    """Draws the metrics.jsonl of a run into curves.png in its folder, and gives the path of the picture."""
    path, runs = folder / "curves.png", [read_run(folder)]
    write_whole({path: lambda temporary: write_png(runs, title, "step", temporary)})
    return path


def write_png(
    runs: Sequence[Run],
    title: str,
    axis: Axis,
    path: Path,
    charts: Sequence[Chart] = CHARTS,
    steps_per_epoch: int | None = None,
) -> None:
    """Draws the charts of runs into a PNG file.

    Args:
        runs: The runs, read with this axis.
        title: The title above all charts.
        axis: The unit of the horizontal axis.
        path: The path of the file.
        charts: The charts to draw, as far as there are values.
        steps_per_epoch: The steps of an epoch, for a second axis with steps above one with epochs.
    """
    with extra("plots", "pictures"):
        from matplotlib.figure import Figure

    charts = drawn(runs, charts)
    columns = 1 if len(charts) < 2 else 2
    rows = max(1, math.ceil(len(charts) / columns))  # one, for an empty picture, if there is nothing to draw
    figure = Figure(figsize=(11, 0.8 + 2.2 * max(rows, 2) + 0.2 * len(runs)), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True).ravel()
    for axes, chart in zip(grid, charts, strict=False):
        _draw(axes, chart, runs)
        if steps_per_epoch:
            scales = (lambda x: x * steps_per_epoch, lambda x: x / steps_per_epoch)
            axes.secondary_xaxis("top", functions=scales).set_xlabel(AXES["step"])
    for axes in grid[len(charts) :]:
        axes.axis("off")
    for axes in grid[: len(charts)][-columns:]:  # the lowest of each column
        axes.set_xlabel(AXES[axis])
        axes.tick_params(labelbottom=True)
    figure.suptitle(printable(title), parse_math=False)
    if len(runs) > 1:
        handles = [axes.plot([], color=color_of(i), linewidth=3)[0] for i in range(len(runs))]
        legend = figure.legend(handles, [" "] * len(runs), loc="outside upper left", frameon=False)
        for text, run in zip(legend.get_texts(), runs, strict=True):
            text.set_text(run.name)  # matplotlib leaves out labels that begin with _
            text.set_parse_math(False)
    figure.savefig(path, format="png", dpi=110)


def _draw(axes: Axes, chart: Chart, runs: Sequence[Run]) -> None:
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

    for line in chart.lines:
        style = {
            "linestyle": {"solid": "-", "dash": "--", "dot": ":", "none": ""}[line.dash],
            "marker": {"none": "", "circle": "o", "square": "s", "x": "x"}[line.mark],
            "linewidth": 0.8 if line.faint else 1.5,
            "alpha": 0.55 if line.faint else 1.0,
            "markersize": 7 if line.dash == "none" else 4,
            "markeredgewidth": 2 if line.mark == "x" else 1,
        }
        for i, run in enumerate(runs):
            if points := run.points(chart, line):
                axes.plot(*points, color=color_of(i if len(runs) > 1 else line.color), **style)
        axes.plot([], color="gray" if len(runs) > 1 else color_of(line.color), label=line.label, **style)
    if chart.log:
        axes.set_yscale("log")
        low, high = axes.get_ylim()
        wide = LogLocator(subs=(1,) if high > 100 * low else (1, 2, 5))
        axes.yaxis.set_major_locator(wide if high > 8 * low else MaxNLocator(5))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_ylim(bottom=0)
    if len(chart.lines) > 1:
        axes.legend(fontsize=8)
    axes.set_title(chart.title, loc="left", fontsize=10, fontweight="bold")
    axes.set_ylabel(chart.unit)
    axes.grid(alpha=0.3)
