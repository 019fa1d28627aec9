"""What a sum over processes costs: of ResNet-50's gradients, and of next to nothing.

    python benchmarks/collective.py [--sizes 2 4 8 64] [--rounds 7] [--out FILE.json]

Threads of one process stand for processes: XGBoost's collective takes each for one, and they sum over
loopback as processes do. All share this machine's cores, so that a sum costs no less here than where each
process has cores of its own. The time of a sum of next to nothing, divided by the hops around the ring, is
what a message costs. Beyond --most processes, only that is measured.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from report import origin, spread
from xgboost import collective

from sysds_resnet.training.processes.group import JoinedGroup, start_tracker

GRADIENTS = 25_557_032  # ResNet-50 with 1000 classes
SMALL = 1024


def seconds_of(size: int, n: int, kind: str, rounds: int) -> list[float]:
    """Seconds of sums of so many numbers over so many processes, after one for warm-up."""
    tracker, arguments = start_tracker(size, "127.0.0.1")
    together = threading.Barrier(size)

    def member(rank: int) -> list[float]:
        collective.init(**arguments, dmlc_task_id=f"{rank:08}")  # the tracker prints who is who
        group = JoinedGroup(rank, size, 600, lambda _: None)
        values, found = np.full(n, rank, kind), []
        for _ in range(rounds + 1):
            together.wait()
            began = time.perf_counter()
            total = group.sum(values)
            found.append(time.perf_counter() - began)
        assert total[0] == size * (size - 1) / 2
        collective.finalize()
        return found[1:]

    with ThreadPoolExecutor(size) as threads:
        times = list(threads.map(member, range(size)))
    tracker.wait_for()
    return [max(one) for one in zip(*times, strict=True)]


def main() -> None:
    """Measures and writes the file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[2, 4, 8, 64])
    parser.add_argument("--most", type=int, default=8, help="processes that sum whole gradients")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    found = []
    for size in args.sizes:
        row: dict[str, object] = {"processes": size}
        if size <= args.most:
            for kind in ("f4", "f8"):
                row[f"gradients_{kind}_s"] = spread(seconds_of(size, GRADIENTS, kind, args.rounds))
        row["small_s"] = spread(seconds_of(size, SMALL, "f4", args.rounds))
        row["hop_s"] = row["small_s"]["median"] / (2 * (size - 1))
        found.append(row)
        print(json.dumps(row), flush=True)
    if args.out:
        result = {
            **origin(),
            "sums": found,
        }
        args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
