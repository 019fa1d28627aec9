"""The command that evaluates weights on a data set: python -m sysds_resnet.evaluate."""

from __future__ import annotations

import sys
from pathlib import Path

from sysds_resnet.batches.bad_images import BadImages
from sysds_resnet.errors import UserError, printable
from sysds_resnet.images.settings import DataSettings
from sysds_resnet.scoring.labelled import outcomes_here, outcomes_on_spark
from sysds_resnet.scoring.outcomes import write_report
from sysds_resnet.scoring.settings import EvaluateSettings
from sysds_resnet.settings.command_line import build, run
from sysds_resnet.settings.yaml_files import read_yaml
from sysds_resnet.system.console import warn
from sysds_resnet.system.urls import is_url
from sysds_resnet.training.run_folder import CONFIG_FILE, run_of


def command(settings: EvaluateSettings) -> None:
    """Evaluates the weights, prints their scores, and writes them if there is a folder for them."""
    settings.check_cluster()
    for path in settings.weights:
        warn_of_training_images(settings, path)
    if settings.out and settings.out.exists() and not settings.out.is_dir():
        raise UserError(f"{settings.out}: found a file, expected a folder or nothing; choose another --out")
    bad = BadImages(settings, settings.out or Path())
    by = outcomes_on_spark if settings.engine == "spark" else outcomes_here
    outcomes, details = by(settings, bad)
    scores = outcomes.scores()
    text = f"{scores['images']} images: loss {scores['loss']:.4f}, top-1 {100 * scores['top1']:.2f} %"
    if len(outcomes.classes) > 5:  # otherwise every image is a hit
        text += f", top-5 {100 * scores['top5']:.2f} %"
    print(text)
    if len(bad):
        print(printable(f"{len(bad)} images cannot be read and were left out: {bad.path}"))
    if settings.out:
        write_report(settings.out, outcomes, {"left_out": len(bad), **details})
        print(printable(f"scores: {settings.out}"))


def warn_of_training_images(settings: EvaluateSettings, weights: str) -> None:
    """Warns if the run that weights are of took its training images from those that are to be scored."""
    folder = None if is_url(weights) else run_of(Path(weights))
    if folder is None:
        return
    values = read_yaml(folder / CONFIG_FILE)
    run = build(DataSettings, {name: values[name] for name in DataSettings.model_fields if name in values})
    division = (run.val_split, run.split_seed)
    if run.val_split is None or division == (settings.val_split, settings.split_seed):
        return
    if run.located(elsewhere=True) == settings.located(elsewhere=True):
        flags = f"--val-split {run.val_split:g}" + (
            f" --split-seed {run.split_seed}" if run.split_seed else ""
        )
        warn(
            f"{settings.dataset}: found images here that {weights} was trained on, expected others for "
            f"scores that say something; add {flags}, as in its training, to score the rest alone"
        )


def main(argv: list[str] | None = None) -> int:
    """Runs the command line, and gives the exit code."""
    return run(EvaluateSettings, command, argv)


if __name__ == "__main__":
    sys.exit(main())
