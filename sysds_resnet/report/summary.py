"""The table beside the charts of runs: their last and best figures, and settings that tell them apart."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sysds_resnet.errors import printable
from sysds_resnet.report.charts import Run
from sysds_resnet.settings.yaml_files import read_yaml
from sysds_resnet.system.redaction import redacted_text

if TYPE_CHECKING:
    import pandas as pd

MAIN_SETTINGS = ("dataset", "model", "optimizer", "schedule", "base_lr", "batch_size", "epochs", "seed")


def summary(runs: Sequence[Run], defaults: Mapping[str, Any], hidden: Collection[str] = ()) -> pd.DataFrame:
    """Gives a row of texts for each run: its last and best figures, and settings.

    The settings are those of `MAIN_SETTINGS` for a single run, and those in which they differ for several. A
    setting that a config.yaml lacks, because an older version wrote it, has its default.

    Args:
        runs: The runs to describe.
        defaults: The defaults of all settings, by name.
        hidden: The settings that neither the weights nor the speed depend on, which tell no runs apart.
    """
    import pandas as pd  # not at the top: commands start sooner without it

    rows = [
        {**_figures(one), **values}
        for one, values in zip(runs, _settings(runs, defaults, hidden), strict=True)
    ]
    return pd.DataFrame(rows, [one.name for one in runs]).fillna("")


def _settings(
    runs: Sequence[Run], defaults: Mapping[str, Any], hidden: Collection[str]
) -> list[dict[str, str]]:
    files = [one.folder / "config.yaml" for one in runs]
    found = [{**defaults, **read_yaml(file)} if file.exists() else {} for file in files]
    if len(runs) == 1:
        names = MAIN_SETTINGS
    else:
        known = [values for values in found if values]
        names = [n for n in dict.fromkeys(n for values in known for n in values) if n not in hidden]
        names = [n for n in names if len({str(values.get(n)) for values in known}) > 1]
    return [{name: _shown(values[name]) for name in names if name in values} for values in found]


def _shown(value: object) -> str:
    return "none" if value is None else printable(redacted_text(str(value)))


def _figures(one: Run) -> dict[str, str]:
    steps, epochs = (one.tables.get(event, {}) for event in ("step", "epoch"))
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
