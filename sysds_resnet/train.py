"""The command that trains a network: python -m sysds_resnet.train.

The flags are declared in training/settings.py; training/run.py has what a run does, and training/state.py one
step of it.
"""

from __future__ import annotations

import sys

from sysds_resnet.settings.command_line import parse, run
from sysds_resnet.training.run import train
from sysds_resnet.training.run_folder import check_settings, read_config
from sysds_resnet.training.settings import TrainSettings


def main(argv: list[str] | None = None) -> int:
    """Runs the command line, and gives the exit code."""
    return run(TrainSettings, lambda settings: _command(settings, argv), argv)


def _command(settings: TrainSettings, argv: list[str] | None) -> None:
    if settings.resume is not None:
        # the flags win over the settings that the run began with
        base = read_config(settings.resume)
        settings = parse(TrainSettings, sys.argv[1:] if argv is None else argv, base)
        check_settings(settings, settings.resume)
    train(settings)


if __name__ == "__main__":
    sys.exit(main())
