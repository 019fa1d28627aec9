"""What Spark's driver takes for a task, and a worker for the name of a file in its program.

    python benchmarks/scheduling.py [--out FILE.json]

On a cluster of two executors on this machine: jobs of 2 and of 1,024 empty tasks, and evaluations of a
ResNet-18 on 32 x 32 pixels whose lists of images are of 2 and of 1,026 files, of which the same two are read.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
from report import command_line, machine
from scaling import running_cluster

from sysds_resnet import ResNet
from sysds_resnet.engine import Engine
from sysds_resnet.engine.blocks import write_matrix
from sysds_resnet.engine.spark.cluster import Cluster
from sysds_resnet.network.inference import BN_EPS
from sysds_resnet.training.spark.steps import _EVALUATE

ROUNDS = 9
WARMUP = 12
MANY = 1024
GIB = 2**30
SIZE = 32


def seconds(act) -> float:
    """Median time of a few rounds, after one that does not count."""
    found = []
    for _ in range(1 + ROUNDS):
        began = time.perf_counter()
        act()
        found.append(time.perf_counter() - began)
    return statistics.median(found[1:])


def main() -> None:
    """Measures and writes the file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    with running_cluster(2, 2 * GIB) as (url, folder):
        cluster = Cluster(url, 2, f"{folder}/scratch", memory=2 * GIB)
        with Engine("double", 2 * GIB, cluster=cluster) as engine:
            context = engine.spark.context._jsc
            numbers = engine._jvm.java.util.ArrayList(range(MANY))

            def job(tasks: int) -> None:
                context.parallelize(numbers, tasks).count()

            few, many = seconds(lambda: job(2)), seconds(lambda: job(MANY))
            model = ResNet(18, 10, engine=engine)
            path = f"{folder}/images"
            with open(path, "wb") as file:
                write_matrix(file, np.zeros((2, 3 * SIZE * SIZE)))
            network = model.network

            def evaluate(files: int) -> float:
                images = [engine.matrices.open(path, 2, 3 * SIZE * SIZE) for _ in range(files)]
                inputs = {
                    "images": engine.make_list(images),
                    "y": np.ones((4, 1)),
                    "model": model.weights,
                    "registry": network.registry,
                    "plan": network.plan(2, SIZE, SIZE, backward=True),
                    "mean": model.mean,
                    "std": model.std,
                    "workers": 2,
                    "micro_batch": 2,
                    "eps": BN_EPS,
                }
                began = time.perf_counter()
                engine.run(_EVALUATE, inputs)
                return time.perf_counter() - began

            lengths = (2, 2 + MANY)
            for _ in range(WARMUP):
                evaluate(lengths[1])
            # in turns, since the JVMs get faster all the time
            times = [[evaluate(length) for length in lengths] for _ in range(ROUNDS)]
            listed = dict(zip(lengths, map(statistics.median, zip(*times, strict=True)), strict=True))
    result = {
        "command": command_line(),
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": machine(),
        "n": ROUNDS,
        "jobs_s": {"2": few, str(MANY): many},
        "task_s": (many - few) / (MANY - 2),
        "evaluations_s": {str(files): value for files, value in listed.items()},
        "file_s": max(0.0, listed[2 + MANY] - listed[2]) / MANY,
    }
    print(json.dumps(result))
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
