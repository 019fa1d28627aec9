"""Trains a network: python -m sysds_resnet.train.

What the flags mean stands in training/settings.py, what a run does in training/run.py, and one step of it in
training/state.py.
"""

from __future__ import annotations

import sys

from sysds_resnet.settings.command_line import find_flag, parse, run
from sysds_resnet.settings.recipes import describe_all
from sysds_resnet.training.run import train
from sysds_resnet.training.run_folder import check_settings, read_config
from sysds_resnet.training.settings import TrainSettings


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    if find_flag("recipe", sys.argv[1:] if argv is None else argv) == "list":
        print(describe_all())
        return 0
    return run(TrainSettings, lambda settings: _command(settings, argv), argv)


def _command(settings: TrainSettings, argv: list[str] | None) -> None:
    if settings.resume is not None:
        # the run's own settings stand behind the flags
        base = read_config(settings.resume)
        settings = parse(TrainSettings, sys.argv[1:] if argv is None else argv, base)
        check_settings(settings, settings.resume)
    train(settings)


if __name__ == "__main__":
    sys.exit(main())
