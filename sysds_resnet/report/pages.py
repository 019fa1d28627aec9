"""The page of a plot: charts by plotly and a table, in one HTML file that loads nothing else."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sysds_resnet.report.charts import AXES, CHARTS, Axis, Chart, Line, Run, color_of, drawn
from sysds_resnet.system.extras import extra

if TYPE_CHECKING:  # the import takes a second, which --help can do without
    import pandas as pd
    import plotly.graph_objects as go

_PLOT, _GAP = 190, 108  # heights in pixels; a gap has a chart's ticks, and the next one's title and legend


def make_figure(
    runs: Sequence[Run], axis: Axis, charts: Sequence[Chart] = CHARTS, steps_per_epoch: int | None = None
) -> go.Figure:
    """Makes a figure of the charts of runs, one above the other, with one horizontal axis for all.

    The arguments are those of `write_png`.
    """
    with extra("plots", "pictures"):
        from plotly.subplots import make_subplots

    charts = drawn(runs, charts)
    inner = max(len(charts) * (_PLOT + _GAP) - _GAP, 2 * _PLOT)
    top = 70 + (24 * len(runs) if len(runs) > 1 else 0)
    figure = make_subplots(len(charts), 1, shared_xaxes="all", vertical_spacing=_GAP / inner)
    figure.update_layout(
        template="plotly_white",
        height=inner + top + 50,
        margin={"l": 10, "r": 10, "t": top, "b": 50},
        hovermode="x unified",
        hoverlabel_namelength=-1,
        modebar={"bgcolor": "rgba(0, 0, 0, 0)", "color": "gray", "activecolor": "gray"},
        legend={"x": 0, "y": 1, "yref": "container", "traceorder": "normal"},
    )
    figure.update_xaxes(
        title={"text": AXES[axis], "standoff": 4},
        showticklabels=True,
        rangemode="tozero",
        unifiedhovertitle_text=f"{AXES[axis]} %{{x:,.6~g}}",
    )
    for row, chart in enumerate(charts, 1):
        _add_chart(figure, row, chart, runs)
    for i, one in enumerate(runs if len(runs) > 1 else []):
        sample = {"x": [None], "y": [None], "mode": "lines", "line": {"color": color_of(i), "width": 4}}
        figure.add_scatter(**sample, name=html.escape(one.name), legendgroup=i)
    if steps_per_epoch:
        _add_steps(figure, steps_per_epoch, _GAP / 2 / inner)
    return figure


def _add_steps(figure: go.Figure, steps_per_epoch: int, room: float) -> None:
    """Adds an axis with steps above the one with epochs; zooming moves both."""
    epochs = max(max(trace.x) for trace in figure.data)
    figure.update_layout(
        xaxis_range=[0, epochs],
        xaxis2={"range": [0, epochs * steps_per_epoch], "overlaying": "x", "side": "top", "showgrid": False},
        xaxis2_title={"text": AXES["step"], "standoff": 4},
        margin_t=figure.layout.margin.t + 40,
        height=figure.layout.height + 40,
    )
    figure.layout.legend2.y += room
    figure.add_scatter(x=[None], y=[None], xaxis="x2", yaxis="y", showlegend=False)


def _add_chart(figure: go.Figure, row: int, chart: Chart, runs: Sequence[Run]) -> None:
    several, place = len(runs) > 1, {"row": row, "col": 1, "legend": f"legend{row + 1}"}
    for line in chart.lines:
        for i, one in enumerate(runs):
            if points := one.points(chart, line):
                name = f"{html.escape(one.name)}: {line.label}" if several else line.label
                group = {"legendgroup": i, "showlegend": False} if several else {}
                look = _look(line, color_of(i if several else line.color))
                figure.add_scatter(x=points[0], y=points[1], name=name, **look, **group, **place)
        if several:  # the legend of a chart explains its lines, whatever the run
            figure.add_scatter(x=[None], y=[None], name=line.label, **_look(line, "gray"), **place)
    axis = figure.layout[f"yaxis{row}" if row > 1 else "yaxis"]
    axis.update(title_text=chart.unit, hoverformat=".4g", automargin=True)
    axis.update({"type": "log", "tickformat": "~g"} if chart.log else {"rangemode": "tozero"})
    corner = {"x": 0, "xanchor": "left", "y": axis.domain[1], "yanchor": "bottom", "yref": "paper"}
    title = {"text": f"<b>{chart.title}</b>", "font": {"size": 15}}
    if len(chart.lines) == 1:
        figure.add_annotation(**title, **corner, xref="paper", showarrow=False, yshift=4)
    figure.layout[place["legend"]] = {
        **corner,
        "title": {**title, "side": "top"},
        "orientation": "h",
        "traceorder": "normal",
        "visible": len(chart.lines) > 1,
        "itemclick": False if several else "toggle",
        "itemdoubleclick": False if several else "toggleothers",
    }


def _look(line: Line, color: str) -> dict[str, Any]:
    bare = line.dash == "none"
    return {
        "mode": "markers" if bare else "lines" if line.mark == "none" else "lines+markers",
        "opacity": 0.55 if line.faint else 1,
        "line": {"color": color, "width": 1 if line.faint else 2, "dash": "solid" if bare else line.dash},
        "marker": {
            "color": color,
            "size": 9 if bare else 6,
            "symbol": "circle" if line.mark == "none" else line.mark,
        },
    }


def page(title: str, figure: go.Figure, table: pd.DataFrame | None = None) -> str:
    """Gives an HTML document that loads nothing, which its content security policy makes sure of."""
    config = {"displaylogo": False, "modeBarButtons": [["toImage", "zoom2d", "pan2d", "resetScale2d"]]}
    chart = figure.to_html(
        config, full_html=False, include_plotlyjs=True, post_script=_TOUCH, div_id="charts"
    )
    rows = "" if table is None else f"<div class=table>{table.to_html(border=0)}</div>"
    colors = "".join(
        f"tbody tr:nth-child({i + 1}) th {{ border-left: 6px solid {color_of(i)} }}\n"
        for i in range(0 if table is None or len(table) == 1 else len(table))
    )
    return _PAGE.format(title=html.escape(title), style=_STYLE + colors, table=rows, chart=chart)


_TOUCH = """if (matchMedia("(pointer: coarse)").matches) Plotly.relayout("{plot_id}", {dragmode: false});"""
"""The script by which a finger on a chart scrolls the page rather than zooms."""

_STYLE = """
:root { color-scheme: light dark; --ink: #222; --paper: #fff; --rule: #e4e4e4 }
@media (prefers-color-scheme: dark) { :root { --ink: #ddd; --paper: #17191d; --rule: #363a41 } }
body { font: 15px system-ui, sans-serif; color: var(--ink); background: var(--paper);
       max-width: 1100px; margin: 0 auto; padding: 12px }
h1 { font-size: 1.3em; overflow-wrap: anywhere }
.table { overflow-x: auto }
table { border-collapse: collapse; font-size: 0.87em }
th, td { padding: 4px 10px; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--rule) }
tbody th { text-align: left }
.main-svg { background: transparent !important }
#charts text { fill: var(--ink) !important }
#charts .gridlayer path, #charts .zerolinelayer path { stroke: var(--rule) !important }
#charts .bg { fill: transparent !important }
#charts .hoverlayer .bg { fill: var(--paper) !important }
"""

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; form-action 'none';
 img-src data: blob:; script-src 'unsafe-inline'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>{style}</style>
<h1>{title}</h1>
{table}
{chart}
</html>
"""
