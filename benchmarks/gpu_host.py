"""What the host does for a training step on a GPU: the time of a step on a GPU that takes none.

    python benchmarks/gpu_host.py [CHECKOUT ...] [--batch 64] [--rounds 5] [--out FILE.json]

ResNet-50 in FP32 at 224 x 224, on a GPU in software that leaves out all that is large
(tests/support/software_gpu): operators are started, memory is handed out, pixels and metrics are copied, but
next to nothing is computed. On a card no step is faster with the same CPU. This checkout and others given,
such as `git worktree add` makes them of earlier commits, take turns, each in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path

from report import command_line, machine, spread
from throughput_peers import data

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "tests" / "support"))
MEMORY = 80 * 2**30  # nothing is written there
WARMUP, STEPS = 40, 10  # the JVM compiles for as long


def measure(batch: int) -> dict[str, list[float]]:
    """Seconds of the two parts of steps, as the checkout on Python's path does them."""
    from sysds_resnet import ResNet
    from sysds_resnet.engine import Engine
    from sysds_resnet.train import TrainSettings
    from sysds_resnet.training.state import State

    images, labels = data(batch, 224)
    optimizer = TrainSettings(base_lr=0.01, micro_batch=batch).make_optimizer(1000)
    seconds = {"gradients": [], "update": []}
    with Engine("single", gpus=[0]) as engine:
        state = State.fresh(ResNet(50, engine=engine))
        for _ in range(WARMUP + STEPS):
            sent = state.send(images, optimizer)  # in training another thread does this
            started = time.perf_counter()
            done = state._gradients(sent, labels, optimizer)
            half = time.perf_counter()
            state.apply(*done, optimizer)
            seconds["gradients"].append(half - started)
            seconds["update"].append(time.perf_counter() - half)
    return {name: values[WARMUP:] for name, values in seconds.items()}


def main() -> None:
    """Runs everything, or as a child one checkout."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkouts", nargs="*", type=Path)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/gpu_host.json"))
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(measure(arguments.batch)))
        return
    import software_gpus

    found = {path: {"gradients": [], "update": []} for path in [ROOT, *arguments.checkouts]}
    with tempfile.TemporaryDirectory() as folder:
        software_gpus.build(Path(folder))
        environment = os.environ | {"LD_LIBRARY_PATH": folder, "SOFTWARE_GPU_IDLE": "1"}
        environment |= {"SOFTWARE_GPU_MEMORY": str(MEMORY)}
        for _ in range(arguments.rounds):
            for path, seconds in found.items():
                command = [sys.executable, __file__, "--child", "--batch", str(arguments.batch)]
                output = subprocess.run(
                    command, env=environment | {"PYTHONPATH": str(path)}, stdout=subprocess.PIPE, check=True
                ).stdout
                for name, values in json.loads(output).items():
                    seconds[name] += values
                print(path.name, {name: statistics.median(values) for name, values in seconds.items()})
    result = {
        "command": command_line(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": machine(),
        "batch": arguments.batch,
        "checkouts": [
            {"commit": commit(path), **{name: spread(values) for name, values in seconds.items()}}
            for path, seconds in found.items()
        ],
    }
    arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result["checkouts"], indent=1))


def commit(checkout: Path) -> str:
    """Which version is there."""
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    main()
