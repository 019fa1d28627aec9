"""The command that writes a data set once, as images of one size: python -m sysds_resnet.prepare."""

from __future__ import annotations

import sys

from sysds_resnet.errors import printable
from sysds_resnet.preparing.dataset import (
    prepare,
)
from sysds_resnet.preparing.matrices import (
    MATRICES,
)
from sysds_resnet.preparing.settings import PrepareSettings
from sysds_resnet.settings.command_line import run
from sysds_resnet.system.command_lines import own_command


def command(settings: PrepareSettings) -> None:
    """Prepares a data set, and prints what to do with the result."""
    manifest = prepare(settings)
    images = sum(map(sum, manifest.shards.values()))
    print(printable(f"{settings.out}: {images} images; train with --dataset {settings.out}"))
    if settings.matrices:
        folder = settings.out / MATRICES
        files = {"X": "train_X", "Y": "train_Y", "mean_std": "mean_std"}
        arguments = [f"{name}={folder / file}" for name, file in files.items()]
        print(own_command("systemds", "dml/train.dml", "-nvargs", *arguments, "out=MODEL"))
    if settings.blocks:
        options = ["--master", "URL", "--executors", "K", "--scratch", "SHARED_FOLDER"]
        options += ["--data", settings.out, "--blocks", settings.blocks, "--out", "MODEL"]
        print(own_command("spark_command", "dml", *options))


def main(argv: list[str] | None = None) -> int:
    """Runs the command line, and gives the exit code."""
    return run(PrepareSettings, command, argv)


if __name__ == "__main__":
    sys.exit(main())
