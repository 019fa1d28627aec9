"""The program that spark-submit runs; python -m sysds_resnet.spark_command prints the line for that:

spark-submit ... sysds_resnet/spark_program.py train --engine spark ...
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

COMMANDS = ("train", "prepare", "evaluate", "predict")


def main(argv: list[str]) -> int:
    """Runs the command that comes first, with the options that follow."""
    if not argv or argv[0] not in COMMANDS:
        print(
            f"error: command: found {argv[0] if argv else 'none'}, expected {', '.join(COMMANDS)}",
            file=sys.stderr,
        )
        return 2
    return import_module(f"sysds_resnet.{argv[0]}").main(argv[1:])


if __name__ == "__main__":
    # Python would look for modules first in this file's folder, which has some with the names of others.
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    sys.exit(main(sys.argv[1:]))
