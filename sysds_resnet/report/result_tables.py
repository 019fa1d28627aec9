"""The results of runs as two tables in Markdown."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from sysds_resnet.errors import printable
from sysds_resnet.report.results import (
    NOT_MEASURED,
    PRECISIONS,
    Results,
)
from sysds_resnet.system.files import write_whole


def tables(runs: Sequence[Results]) -> str:
    """Gives both tables for several runs in Markdown.

    In the first one, the precisions of a network on the same number of cards share a row. Where no run was on
    GPUs, cards are called workers.
    """
    names = [name for name in PRECISIONS.values() if name != "FP64" or any(r.precision == name for r in runs)]
    share = "card" if any(results.device == "gpu" for results in runs) else "worker"
    shares = f"{share.capitalize()}s"
    first: list[dict[str, str]] = []
    for results in runs:
        start = {"Model": results.model, shares: f"x{results.cards}"}
        open_rows = [row for row in first if start.items() <= row.items() and results.precision not in row]
        if not open_rows:
            first.append(start)
        (open_rows or [start])[0][results.precision] = _summary(results)
    columns = ["Model", shares, *names]
    rows = [[row.get(name, NOT_MEASURED) for name in columns] for row in first]
    heads = [
        "Convergence criteria",
        f"Configuration (x denotes number of {share}s)",
        "Performance (images/s)",
    ]
    heads += ["Accuracy (%)", "Power (W)", "Scalability", "Memory (GiB)", "Stability"]
    return f"{markdown(columns, rows)}\n\n{markdown(heads, [_figures(results) for results in runs])}"


def duration(seconds: float) -> str:
    """Gives seconds in the two largest units, such as 4d3h, 12h43m or 3m24s, but no second unit of 0."""
    step = 1 if seconds < 3600 else 60 if seconds < 86400 else 3600
    rest = round(seconds / step) * step
    parts = []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        n, rest = divmod(rest, size)
        if n:
            parts.append(f"{n}{unit}")
    return "".join(parts[:2]) or "0s"


def _summary(results: Results) -> str:
    accuracy, fps = _format(results.top1, ".2f", 100), _number(results.images_per_s)
    return f"Acc@1={accuracy}, FPS={fps}, Time={duration(results.seconds)}, BatchSize={results.batch_size}"


def _figures(results: Results) -> list[str]:
    memory = [(results.gpu_gib, "GPU"), (results.rss_gib, "RAM")]
    return [
        results.criterion,
        f"{results.model}, bs:{results.batch_size}, {results.cards}x, {results.precision}",
        _number(results.images_per_s),
        _format(results.top1, ".2f", 100),
        _format(results.power_w, ".0f"),
        _format(results.scalability, ".2f"),
        ", ".join(f"{gib:.1f} {of}" for gib, of in memory if gib is not None) or NOT_MEASURED,
        "; ".join([str(results.stability), *results.disturbances]),
    ]


def _format(value: float | None, how: str, factor: int = 1) -> str:
    return NOT_MEASURED if value is None else format(factor * value, how)


def _number(value: float) -> str:
    """Gives a number with three significant digits, or with all digits before the decimal point."""
    digits = max(0, 2 - math.floor(math.log10(value))) if value > 0 else 0
    return f"{value:.{digits}f}"


def markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Gives a table in Markdown, in which characters that would end a cell are escaped."""
    cells = ([printable(cell).replace("|", "\\|") for cell in row] for row in rows)
    return "\n".join(f"| {' | '.join(row)} |" for row in (heads, ["---"] * len(heads), *cells))


def write_results(folder: Path, results: Results) -> None:
    """Writes results.json and results.md into a run folder."""
    text = {"results.json": json.dumps(asdict(results), indent=2), "results.md": tables([results])}
    write_whole({folder / name: lambda path, t=t: path.write_text(t + "\n") for name, t in text.items()})
