"""What a sum over processes costs: of ResNet-50's gradients, and of next to nothing.

    python benchmarks/collective.py [--sizes 2 4 8 64 256] [--gbits 1 10] [--rounds 7] [--out FILE.json]

The processes sum over loopback and share this machine's cores, so that a sum costs no less here than where
each process has cores of its own. A sum of next to nothing is two messages for each process but one, in a
row. So its time, by message, is what a message costs; while there are no more processes than cores, a part
of that is the time until a process that sleeps is woken. Beyond --most processes, only that is measured.

With --gbits, processes also sum gradients in FP32 and in bf16 over networks of these bandwidths, in gigabits
a second, each on an emulated machine of its own (emulated_network.py; needs root).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from emulated_network import machines
from processes import together
from report import origin, spread

from sysds_resnet.training.processes.group import MESSAGE, JoinedGroup
from sysds_resnet.training.processes.rounded_sum import RoundedSum
from sysds_resnet.training.processes.summing import BF16_BYTES, divided

GRADIENTS = 25_557_032  # ResNet-50 with 1000 classes
SMALL = 1024
Case = tuple[int, str]  # how many numbers, and their type: one of NumPy's, or "bf16"


def seconds_of(rounds: int, cases: Sequence[Case], group: JoinedGroup) -> list[list[float]]:
    """What one of the processes measured: for each case the seconds of its sums, after one for warm-up."""
    rounded = RoundedSum(group) if any(kind == "bf16" for _, kind in cases) else None
    found = []
    for n, kind in cases:
        seconds = []
        for _ in range(rounds + 1):
            values = np.full(n, group.rank, "f4" if kind == "bf16" else kind)
            group.sum(np.zeros(1))  # all have come
            began = time.perf_counter()
            if kind == "bf16":
                rounded.sum(values, divided(0, n, group.size * MESSAGE // BF16_BYTES, group.size))
            else:
                group.sum(values)
            seconds.append(time.perf_counter() - began)
            assert values[0] == values[-1] == group.size * (group.size - 1) / 2
        found.append(seconds[1:])
    return found


def slowest(found: Sequence[Sequence[Sequence[float]]]) -> list[list[float]]:
    """For each case the seconds of the slowest of all processes."""
    return [[max(one) for one in zip(*times, strict=True)] for times in zip(*found, strict=True)]


def on_loopback(size: int, most: int, rounds: int) -> dict[str, object]:
    """The sums of so many processes on this machine's network."""
    whole = [(GRADIENTS, "f4"), (GRADIENTS, "f8")] if size <= most else []
    found = together(partial(seconds_of, rounds, [*whole, (SMALL, "f4")]), size)
    *gradients, small = slowest(found)
    row: dict[str, object] = {"processes": size}
    for (_, kind), seconds in zip(whole, gradients, strict=True):
        row[f"gradients_{kind}_s"] = spread(seconds)
    row["small_s"] = spread(small)
    row["message_s"] = row["small_s"]["median"] / (2 * (size - 1))
    return row


def on_network(size: int, gbits: float, rounds: int) -> dict[str, object]:
    """The sums of so many processes on machines with a network of a bandwidth."""
    cases = [(GRADIENTS, "f4"), (GRADIENTS, "bf16")]
    with machines(size, gbits) as places:
        found = slowest(together(partial(seconds_of, rounds, cases), size, places))
    sums = {f"gradients_{kind}_s": spread(times) for (_, kind), times in zip(cases, found, strict=True)}
    return {"processes": size, "gbits": gbits, **sums}


def main() -> None:
    """Measures and writes the file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[2, 4, 8, 64, 256])
    parser.add_argument("--most", type=int, default=8, help="processes that sum whole gradients")
    parser.add_argument("--gbits", type=float, nargs="*", default=[], help="bandwidths of emulated networks")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    measured = {"sums": [], "networks": []}
    for size in args.sizes:
        measured["sums"].append(on_loopback(size, args.most, args.rounds))
        print(json.dumps(measured["sums"][-1]), flush=True)
    for gbits in args.gbits:
        for size in (size for size in args.sizes if size <= args.most):
            measured["networks"].append(on_network(size, gbits, args.rounds))
            print(json.dumps(measured["networks"][-1]), flush=True)
    if args.out:
        args.out.write_text(json.dumps({**origin(), **measured}, indent=1) + "\n")


if __name__ == "__main__":
    main()
