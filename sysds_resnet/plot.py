"""The command that draws runs, or learning rates before a run starts: python -m sysds_resnet.plot."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from sysds_resnet.engine import Engine
from sysds_resnet.errors import UserError, printable
from sysds_resnet.images import open_dataset
from sysds_resnet.report.charts import Axis, Chart, Line, Run, drawn, read_run
from sysds_resnet.report.pages import make_figure, page
from sysds_resnet.report.pictures import write_png
from sysds_resnet.report.summary import summary
from sysds_resnet.settings.base import Settings
from sysds_resnet.settings.command_line import run
from sysds_resnet.settings.fields import names_where, setting
from sysds_resnet.system.files import write_whole
from sysds_resnet.training.settings import TrainSettings

IMAGENET_IMAGES = 1_281_167  # training images of ImageNet-1k: https://arxiv.org/abs/1409.0575, table 2
SCHEDULE_HEAP = 2**30  # bytes; half a million learning rates are 4 MB


class PlotSettings(Settings):
    """Draws runs into curves.png and curves.html, a page that needs nothing else."""

    runs: list[Path] = setting(
        positional=True, group="input", value="RUN", description="The run folders; runs may still be going."
    )
    out: Path | None = setting(
        None,
        group="output",
        description="The folder to write to; by default that of a single run, or the working directory.",
    )
    x_axis: Axis = setting(
        "step",
        group="output",
        alias="--x",
        description="The horizontal axis; hours since the start include pauses.",
    )
    schedule: bool = setting(
        False,
        group="schedule",
        description="Whether to draw the learning rate of a run that has not started instead, into "
        "schedule.png and schedule.html; takes --images and the flags of sysds_resnet.train.",
    )
    images: int | None = setting(
        None, group="schedule", description="The number of training images, with --schedule."
    )


class ScheduleSettings(TrainSettings):
    """Draws the learning rate of a run that has not started, from the flags of sysds_resnet.train."""

    command = "plot"

    runs: list[Path] = setting(
        [], positional=True, group="input", value="RUN", description="No runs are taken with --schedule."
    )
    out: Path | None = setting(
        None,
        group="output",
        common=True,
        description="The folder to write to; by default the working directory.",
    )
    images: int | None = setting(
        None,
        group="schedule",
        common=True,
        ge=1,
        description="The number of training images; by default that of the data set.",
    )


def plot_runs(settings: PlotSettings) -> None:
    """Draws runs into curves.png and curves.html."""
    if settings.images is not None:
        raise UserError(f"images: found {settings.images} without --schedule, expected none; add --schedule")
    folders = {folder.resolve(): folder for folder in settings.runs}
    names = [folder.name for folder in folders]
    runs = [
        read_run(given, settings.x_axis, folder.name if names.count(folder.name) == 1 else str(given))
        for folder, given in folders.items()
    ]
    if not drawn(runs):
        raise UserError(
            f"{settings.runs[0]}: found no figure to draw, expected some; wait for the first step"
        )
    title = runs[0].name if len(runs) == 1 else f"{len(runs)} runs"
    out = settings.out or (settings.runs[0] if len(runs) == 1 else Path())
    text = page(title, make_figure(runs, settings.x_axis), _described(runs))
    _write(out, "curves", text, lambda path: write_png(runs, title, settings.x_axis, path))


def _described(runs: Sequence[Run]) -> pd.DataFrame:
    defaults = {name: field.default for name, field in TrainSettings.model_fields.items()}
    return summary(runs, defaults, names_where(TrainSettings, matters=False))


def plot_schedule(settings: ScheduleSettings) -> None:
    """Draws the learning rates of a schedule into schedule.png and schedule.html."""
    for name, value in (("runs", next(iter(settings.runs), None)), ("resume", settings.resume)):
        if value is not None:
            raise UserError(
                f"{name}: found {value} with --schedule, expected none; for the schedule of that run give "
                f"--config {value}/config.yaml"
            )
    images = settings.images or len(
        open_dataset(settings.dataset, "train", **settings.where(), num_images=settings.num_images)
    )
    if images < settings.batch_size:
        raise UserError(
            f"images: found {images} for a batch size of {settings.batch_size}, expected at least as many; "
            "give their number by --images, or choose a smaller --batch-size"
        )
    schedule = settings.make_schedule(images // settings.batch_size)
    with Engine("double", SCHEDULE_HEAP, "none", fused=False) as engine:
        rates = pd.DataFrame({"lr": schedule.rates(engine)})
    rates["step"] = rates.index + 1
    rates["x"] = rates["step"] / schedule.steps_per_epoch
    name = " (ImageNet-1k)" if images == IMAGENET_IMAGES else ""
    title = f"{schedule.name}, {schedule.epochs} epochs of {images:,} images{name}, {len(rates):,} steps"
    tables, chart = _marked(rates, schedule.warmup_steps)
    runs, steps = [Run(Path(), title, tables)], schedule.steps_per_epoch
    text = page(title, make_figure(runs, "epoch", [chart], steps))
    out = settings.out or Path()
    _write(out, "schedule", text, lambda path: write_png(runs, title, "epoch", path, [chart], steps))


def _marked(rates: pd.DataFrame, warmup_steps: int) -> tuple[dict[str, pd.DataFrame], Chart]:
    """Gives the tables and the chart of learning rates with the peak and the warm-up's end marked.

    It prints these, too.
    """
    tables, lines = {"step": rates}, [Line("step", "lr", "learning rate")]
    marks = [("peak", "circle", rates["lr"].idxmax()), ("warm-up ends", "x", warmup_steps - 1)]
    for event, mark, row in marks:
        if 0 <= row < len(rates):  # there may be no warm-up, or one without an end
            tables[event] = rates.loc[[row]]
            lr, step, epoch = rates.loc[row, ["lr", "step", "x"]]
            label = f"{event}: {lr:.4g} at step {step:,.0f}, epoch {epoch:.4g}"
            lines.append(Line(event, "lr", label, "none", mark, color=len(lines)))
            print(label)
    return tables, Chart("Learning rate", "learning rate", tuple(lines))


def _write(out: Path, name: str, text: str, write: Callable[[Path], None]) -> None:
    if out.exists() and not out.is_dir():
        raise UserError(f"out: found the file {out}, expected a folder; choose another")
    picture, document = out / f"{name}.png", out / f"{name}.html"
    write_whole({picture: write, document: lambda path: path.write_text(text, encoding="utf-8")})
    print(printable(str(picture)), printable(str(document)), sep="\n")


def main(argv: list[str] | None = None) -> int:
    """Runs the command line, and gives the exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if not any(word.split("=")[0] == "--schedule" for word in argv):
        return run(PlotSettings, plot_runs, argv)
    # --schedule alone asks for the picture; with a value it is the flag of train as well
    alone = [
        i
        for i, word in enumerate(argv)
        if word == "--schedule" and "".join(argv[i + 1 : i + 2])[:1] in ("", "-")
    ]
    return run(ScheduleSettings, plot_schedule, [word for i, word in enumerate(argv) if i not in alone])


if __name__ == "__main__":
    sys.exit(main())
