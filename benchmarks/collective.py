"""What a sum over processes costs: of ResNet-50's gradients, and of next to nothing.

    python benchmarks/collective.py [--sizes 2 4 8 64 256] [--rounds 7] [--out FILE.json]

The processes sum over loopback and share this machine's cores, so that a sum costs no less here than where
each process has cores of its own. A sum of next to nothing is two messages for each process but one, in a
row. So its time, by message, is what a message costs; while there are no more processes than cores, a part
of that is the time until a process that sleeps is woken. Beyond --most processes, only that is measured.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from report import origin, spread
from xgboost import collective

from sysds_resnet.training.processes.group import RANK_DIGITS, JoinedGroup, start_tracker

GRADIENTS = 25_557_032  # ResNet-50 with 1000 classes
SMALL = 1024
PATIENCE = 600  # seconds


def member(
    size: int, tracker: dict[str, Any], rounds: int, cases: list[tuple[int, str]], rank: int
) -> list[list[float]]:
    """What one of the processes measured: for each case the seconds of its sums, after one for warm-up."""
    collective.init(**tracker, dmlc_task_id=f"{rank:0{RANK_DIGITS}}")
    group = JoinedGroup(rank, size, PATIENCE, print)
    found = []
    for n, kind in cases:
        seconds = []
        for _ in range(rounds + 1):
            values = np.full(n, rank, kind)
            group.sum(np.zeros(1))  # all have come
            began = time.perf_counter()
            group.sum(values)
            seconds.append(time.perf_counter() - began)
            assert values[0] == values[-1] == size * (size - 1) / 2
        found.append(seconds[1:])
    collective.finalize()
    return found


def seconds_of(size: int, rounds: int, cases: list[tuple[int, str]]) -> list[list[float]]:
    """The seconds of sums over so many processes, those of the slowest, for each number and type."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["sysds_resnet.training.processes.group", "xgboost"])
    tracker, arguments = start_tracker(size, "127.0.0.1")
    with context.Pool(size) as pool:
        work = partial(member, size, arguments, rounds, cases)
        found = pool.map_async(work, range(size), chunksize=1).get(PATIENCE)
    tracker.wait_for()
    return [[max(one) for one in zip(*times, strict=True)] for times in zip(*found, strict=True)]


def main() -> None:
    """Measures and writes the file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[2, 4, 8, 64, 256])
    parser.add_argument("--most", type=int, default=8, help="processes that sum whole gradients")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    found = []
    for size in args.sizes:
        whole = [(GRADIENTS, "f4"), (GRADIENTS, "f8")] if size <= args.most else []
        *gradients, small = seconds_of(size, args.rounds, [*whole, (SMALL, "f4")])
        row: dict[str, object] = {"processes": size}
        for (_, kind), seconds in zip(whole, gradients, strict=True):
            row[f"gradients_{kind}_s"] = spread(seconds)
        row["small_s"] = spread(small)
        row["message_s"] = row["small_s"]["median"] / (2 * (size - 1))
        found.append(row)
        print(json.dumps(row), flush=True)
    if args.out:
        args.out.write_text(json.dumps({**origin(), "sums": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
