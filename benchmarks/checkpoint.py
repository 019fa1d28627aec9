"""What a checkpoint costs training: ResNet-50 in turns with and without one being written in the background.

    python benchmarks/checkpoint.py [--batch 32] [--size 224] [--steps 8] [--rounds 5] [--out FILE.json]

A round is so many steps without a checkpoint and as many with one saved after the first, in alternating
order, in one process after a warm-up. The figures are medians over the rounds: the ratio of their times, and
the seconds that a checkpoint adds, as a share of the time from one to the next that is the default. Beside
them stands what the same checkpoint costs when the run waits for it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from report import origin, spread

from sysds_resnet import ResNet
from sysds_resnet.engine import Engine
from sysds_resnet.training.checkpoints import Checkpoints
from sysds_resnet.training.settings import TrainSettings
from sysds_resnet.training.state import State

WARMUP = 8


def seconds(work) -> float:
    """How long a call takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main() -> None:
    """Measures and writes the file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (args.batch, args.size, args.size, 3), dtype=np.uint8)
    labels = rng.integers(0, 1000, args.batch)
    optimizer = TrainSettings(micro_batch=args.batch).make_optimizer(10_000)
    with Engine("single") as engine, tempfile.TemporaryDirectory() as folder:
        state = State.fresh(ResNet(engine=engine))

        def step() -> None:
            state.update(images, labels, optimizer)

        for _ in range(WARMUP):
            step()
        rounds, waited = [], []
        for number in range(args.rounds):
            times = {}
            for saving in (False, True) if number % 2 else (True, False):
                with Checkpoints(Path(folder), {}, {}, 1, None, 1e9, print) as saved:
                    times[saving] = seconds(step)
                    if saving:
                        times[saving] += seconds(lambda saved=saved: saved.save(state))
                    times[saving] += sum(seconds(step) for _ in range(args.steps - 1))
            rounds.append({"without": times[False], "with": times[True]})
            step()
            with Checkpoints(Path(folder), {}, {}, 1, None, 1e9, print) as saved:
                waited.append(seconds(lambda saved=saved: (saved.save(state), saved.__exit__(None))))
            print(rounds[-1], f"waiting for it: {waited[-1]:.2f} s", flush=True)
        size = next(Path(folder).glob("step-*")).stat().st_size
    ratios = [r["with"] / r["without"] - 1 for r in rounds]
    added = [r["with"] - r["without"] for r in rounds]
    interval = 60 * TrainSettings().save_minutes
    result = {
        **origin(),
        "batch": args.batch,
        "size": args.size,
        "steps": args.steps,
        "checkpoint_mb": size / 1e6,
        "seconds": rounds,
        "waiting_s": waited,
        "share": spread(ratios),
        "share_when_waited_for": statistics.median(waited) / statistics.median(r["without"] for r in rounds),
        "added_s": spread(added),
        "default_interval_s": interval,
        "share_at_default_interval": spread([each / interval for each in added]),
    }
    print(
        f"a checkpoint every {args.steps} steps: {100 * result['share']['median']:.2f} % of their time; "
        f"at the default interval: {100 * result['share_at_default_interval']['median']:.2f} %"
    )
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
