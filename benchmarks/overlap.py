"""Steps of two processes that sum gradients while they compute others, beside steps that sum all afterwards.

    python benchmarks/overlap.py [--gbits 1 10] [--wires auto bf16] [--size 64] [--rounds 6] [--out FILE.json]

ResNet-50 trains on random images, in processes of one thread that each have a core, and an emulated machine
on a network of a bandwidth (emulated_network.py; needs root). Both ways of summing take turns, so many steps
each, in the same processes, since the speed of a machine that is shared with others drifts.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from emulated_network import machines
from processes import together
from report import origin, spread

from sysds_resnet.engine import Engine
from sysds_resnet.network.model import Model
from sysds_resnet.training.gradients import compute_gradients
from sysds_resnet.training.processes import memory_sum, sharing
from sysds_resnet.training.processes.group import JoinedGroup
from sysds_resnet.training.settings import TrainSettings
from sysds_resnet.training.state import State

STEPS = 4  # of each way in a round, the first of which is not counted
WARMUP = 16  # steps


def compute_before(*arguments: Any) -> Any:
    """What `compute_gradients` gives; it tells of the upper gradients when all are computed."""
    *others, early = arguments
    upper = []
    found = compute_gradients(*others, upper.append)
    early(upper[0])
    return found


WAYS: dict[str, Callable[..., Any]] = {"meanwhile": compute_gradients, "afterwards": compute_before}


def steps(wire: str, size: int, images: int, rounds: int, group: JoinedGroup) -> dict[str, list[dict]]:
    """What each step took in one of the processes, by the way of summing: the seconds of all and of parts."""
    os.sched_setaffinity(0, [sorted(os.sched_getaffinity(0))[group.rank]])
    memory_sum.BOOT = Path("/proc/sys/kernel/random/uuid")  # another one each time, as if on other machines
    batch = images * group.size
    settings = TrainSettings(dataset="synthetic", base_lr=0.01, batch_size=batch, micro_batch=images)
    engine = Engine("single", threads=1, heap="5g", initial_heap="4g")
    state, optimizer = State.fresh(Model(50, engine=engine)), settings.make_optimizer(1000)
    exchange = sharing.Exchange(group, [], lambda: False, print)
    update = sharing.SharedUpdate(state, exchange, batch, wire == "bf16")
    rng = np.random.default_rng(group.rank)
    pixels = rng.integers(0, 256, (images, size, size, 3), dtype=np.uint8)
    labels = rng.integers(0, 1000, images)
    found: dict[str, list[dict]] = {way: [] for way in WAYS}
    for _ in range(WARMUP):
        update.update(pixels, labels, optimizer)
    for way in list(WAYS) * rounds:
        sharing.compute_gradients = WAYS[way]
        for i in range(STEPS):
            began = time.perf_counter()
            update.update(pixels, labels, optimizer)
            if i:
                found[way].append({"step_s": time.perf_counter() - began, **update.measured})
    engine.close()
    return found


def main() -> None:
    """Measures and writes the file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--gbits", type=float, nargs="+", default=[1, 10])
    parser.add_argument("--wires", nargs="+", choices=("auto", "bf16"), default=["auto", "bf16"])
    parser.add_argument("--size", type=int, default=64, help="of the images, in pixels")
    parser.add_argument("--images", type=int, default=32, help="of each process in a step")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    rows = []
    for gbits, wire in product(args.gbits, args.wires):
        with machines(2, gbits) as places:
            work = partial(steps, wire, args.size, args.images, args.rounds)
            found = together(work, 2, places)[0]
        row: dict[str, object] = {"gbits": gbits, "wire": wire}
        for way, measured in found.items():
            row[way] = {
                "step_s": spread([one["step_s"] for one in measured]),
                "compute_s": statistics.median(one["compute_s"] for one in measured),
            }
        rows.append(row)
        print(json.dumps(row), flush=True)
    if args.out:
        args.out.write_text(json.dumps({**origin(), "steps": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
