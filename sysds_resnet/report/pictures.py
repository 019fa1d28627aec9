"""Charts of runs as PNG pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sysds_resnet.errors import printable
from sysds_resnet.report.charts import AXES, CHARTS, Axis, Chart, Run, color_of, drawn, read_run
from sysds_resnet.system.extras import extra
from sysds_resnet.system.files import write_whole

if TYPE_CHECKING:  # the import takes half a second, which a start can do without
    from matplotlib.axes import Axes


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
