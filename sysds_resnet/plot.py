"""Draws runs, and learning rates before a run starts: python -m sysds_resnet.plot."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
from pydantic import Field
from pydantic_settings import CliPositionalArg

from sysds_resnet.engine import Engine
from sysds_resnet.errors import UserError, printable
from sysds_resnet.images import open_dataset
from sysds_resnet.images.settings import ReadingSettings
from sysds_resnet.report.charts import Axis, Chart, Line, Run, drawn, read_run, write_png
from sysds_resnet.report.pages import make_figure, page
from sysds_resnet.settings.command_line import Settings, find_flag, read_yaml, run
from sysds_resnet.settings.recipes import describe_all
from sysds_resnet.system.files import write_whole
from sysds_resnet.system.redaction import redacted_text
from sysds_resnet.training.settings import TrainSettings

IMAGENET_IMAGES = 1_281_167  # for training, of ImageNet-1k: https://arxiv.org/abs/1409.0575, table 2
SCHEDULE_HEAP = 2**30  # bytes; half a million learning rates are 4 MB
MAIN_SETTINGS = ("dataset", "model", "optimizer", "schedule", "base_lr", "batch_size", "epochs", "seed")
# Settings that neither the weights nor the speed depend on.
_HIDDEN = {
    "heap",
    "keep",
    "log_every",
    "save_minutes",
    "save_steps",
    "tensorboard",
    *ReadingSettings.model_fields,
}


class PlotSettings(Settings):
    """Draws runs into curves.png and curves.html, a page that needs nothing else."""

    runs: CliPositionalArg[list[Path]] = Field(description="Run folders; runs may still be going.")
    out: Path | None = Field(
        None, description="Folder to write to; by default that of a single run, or the working directory."
    )
    x_axis: Axis = Field("step", description="Also --x; hours since the start include pauses.")
    schedule: bool = Field(
        False,
        description="Draw the learning rate of a run that has not started instead, into schedule.png and "
        "schedule.html; takes --images and the flags of sysds_resnet.train.",
    )
    images: int | None = Field(None, description="With --schedule: number of training images.")


class ScheduleSettings(TrainSettings):
    """Draws the learning rate of a run that has not started, from the flags of sysds_resnet.train."""

    command = "plot"

    runs: CliPositionalArg[list[Path]] = Field([], description="None.")
    out: Path | None = Field(None, description="Folder to write to; by default the working directory.")
    images: int | None = Field(
        None, ge=1, description="Number of training images; by default that of the data set."
    )


def plot_runs(settings: PlotSettings) -> None:
    """Draws runs."""
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
    text = page(title, make_figure(runs, settings.x_axis), summary(runs))
    _write(out, "curves", text, lambda path: write_png(runs, title, settings.x_axis, path))


def plot_schedule(settings: ScheduleSettings) -> None:
    """Draws a schedule."""
    for name, value in (("runs", next(iter(settings.runs), None)), ("resume", settings.resume)):
        if value is not None:
            raise UserError(
                f"{name}: found {value} with --schedule, expected none; for the schedule of that run give "
                f"--config {value}/config.yaml"
            )
    images = settings.images or len(
        open_dataset(settings.dataset, "train", layout=settings.layout, num_images=settings.num_images)
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
    """The tables and the chart of learning rates, with what stands out of them, which is printed too."""
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


def summary(runs: Sequence[Run]) -> pd.DataFrame:
    """A row of texts for each run: its last and best figures, and settings.

    Settings are those of `MAIN_SETTINGS` for one run, and of several those in which they differ; what a
    config.yaml does not say, as of a run of an older version, has its default.
    """
    rows = [{**_figures(one), **values} for one, values in zip(runs, _settings(runs), strict=True)]
    return pd.DataFrame(rows, [one.name for one in runs]).fillna("")


def _settings(runs: Sequence[Run]) -> list[dict[str, str]]:
    defaults = {name: field.default for name, field in TrainSettings.model_fields.items()}
    files = [one.folder / "config.yaml" for one in runs]
    found = [{**defaults, **read_yaml(file)} if file.exists() else {} for file in files]
    if len(runs) == 1:
        names = MAIN_SETTINGS
    else:
        known = [values for values in found if values]
        names = [n for n in dict.fromkeys(n for values in known for n in values) if n not in _HIDDEN]
        names = [n for n in names if len({str(values.get(n)) for values in known}) > 1]
    return [{name: _shown(values[name]) for name in names if name in values} for values in found]


def _shown(value: object) -> str:
    return "none" if value is None else printable(redacted_text(str(value)))


def _figures(one: Run) -> dict[str, str]:
    steps, epochs = (one.tables.get(event, pd.DataFrame()) for event in ("step", "epoch"))
    found = {"steps": f"{max(table['step'].max() for table in one.tables.values()):,.0f}"}
    for column, name, scale in (
        ("train_loss", "train loss", 1),
        ("val_loss", "validation loss", 1),
        ("val_top1", "top-1 (%)", 100),
        ("val_top5", "top-5 (%)", 100),
    ):
        if column in epochs and len(values := epochs[column].dropna()):
            found[name] = f"{scale * values.iloc[-1]:.{4 if scale == 1 else 2}f}"
            if column == "val_top1":
                found["best top-1 (%)"] = (
                    f"{100 * values.max():.2f} in epoch {epochs['epoch'][values.idxmax()]:.0f}"
                )
    if "images_per_s" in steps:
        found["median images/s"] = f"{steps['images_per_s'].median():.1f}"
    return found


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if not any(word.split("=")[0] == "--schedule" for word in argv):
        # one letter after two hyphens is not to be had from pydantic
        return run(PlotSettings, plot_runs, [re.sub(r"^--x(?==|$)", "--x-axis", word) for word in argv])
    if find_flag("recipe", argv) == "list":
        print(describe_all())
        return 0
    # alone it asks for the picture; with a value it is the flag of train too
    alone = [
        i
        for i, word in enumerate(argv)
        if word == "--schedule" and "".join(argv[i + 1 : i + 2])[:1] in ("", "-")
    ]
    return run(ScheduleSettings, plot_schedule, [word for i, word in enumerate(argv) if i not in alone])


if __name__ == "__main__":
    sys.exit(main())
