"""How training scales over Spark executors with a core each, on this machine.

    python benchmarks/scaling.py [--sizes 64 224] [--executors 1 2] [--rounds 2] [--out FILE.json]

For each size and number of executors, a cluster of separate processes on loopback (scripts/spark_cluster.sh)
trains ResNet-50 on synthetic images, so many images an executor and step, read by the executors. The numbers
of executors take turns, round by round, since the speed of a machine that is shared with others drifts. The
figures are medians over the steps of all rounds, each after a warm-up; efficiency is images per second by
executor, relative to the first number of executors. It needs a core for each executor: the driver and the
executors' Python take theirs from the same ones. What cores that share caches and memory can reach at all is
measured beside it: as many separate engines with a thread each, without Spark, that do the same steps at the
same time ("separate_s", and "ceiling" as efficiency is).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import subprocess
import tempfile
import time
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
from report import command_line, machine, spread

from sysds_resnet import ResNet
from sysds_resnet.engine import Engine
from sysds_resnet.engine.jvm.memory import parse_size
from sysds_resnet.engine.spark.cluster import Cluster
from sysds_resnet.images import open_dataset
from sysds_resnet.training.settings import TrainSettings
from sysds_resnet.training.spark.steps import spark_steps
from sysds_resnet.training.state import State

WARMUP = 12  # steps in which the JVMs compile what runs often, with no core to spare where all have executors
SCRIPT = Path(__file__).parents[1] / "scripts" / "spark_cluster.sh"
PARTS = ("broadcast_s", "compute_s", "gather_s", "update_s")


@contextmanager
def running_cluster(workers: int, memory: int):
    """A cluster's URL and folder."""
    with tempfile.TemporaryDirectory() as folder:
        options = ["--workers", str(workers), "--memory", f"{memory // 2**20}m", "--folder", folder]
        command = ["bash", SCRIPT, "start", *options]
        started = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        try:
            yield started.stdout.strip(), folder
        finally:
            subprocess.run(["bash", SCRIPT, "stop", "--folder", folder], check=True)


def measure(size: int, executors: int, args: argparse.Namespace) -> tuple[list[float], list[dict], str]:
    """Seconds of the steps with so many executors, their parts, and what computed them."""
    memory, batch = parse_size(args.executor_memory), executors * args.images
    dataset = open_dataset("synthetic", "train", image_size=size, num_images=batch, num_classes=1000)
    settings = TrainSettings(batch_size=batch, micro_batch=args.micro_batch, epochs=WARMUP + args.steps)
    seconds, parts = [], []
    with running_cluster(executors, memory) as (url, folder):
        cluster = Cluster(url, executors, f"{folder}/scratch", memory=memory)
        with Engine(args.precision, parse_size(args.heap), cluster=cluster) as engine:
            described = engine.describe()
            state = State.fresh(ResNet(50, 1000, engine=engine, mean=dataset.mean, std=dataset.std))
            optimizer = settings.make_optimizer(1)
            with spark_steps(settings, state, dataset, fan_in=args.fan_in) as steps:
                args.fan_in = steps.fan_in
                for _ in range(WARMUP + args.steps):
                    began = time.perf_counter()
                    steps.update(next(steps), optimizer)
                    seconds.append(time.perf_counter() - began)
                    parts.append({name: float(steps.measured[name]) for name in PARTS})
                    state.progress.finish_epoch(None)
    print(f"{size}: {executors} executors, steps of {seconds[WARMUP:]} s", flush=True)
    return seconds[WARMUP:], parts[WARMUP:], described


def rounds(size: int, args: argparse.Namespace) -> list[dict]:
    """What all numbers of executors came to."""
    seconds, parts, separate, engines = {}, {}, {}, {}
    for _ in range(args.rounds):
        for executors in args.executors:
            measured, split, engines[executors] = measure(size, executors, args)
            seconds.setdefault(executors, []).extend(measured)
            parts.setdefault(executors, []).extend(split)
            if args.separate:
                separate.setdefault(executors, []).extend(separate_steps(size, args, executors))
    found = []
    for executors in args.executors:
        batch = executors * args.images
        run = {
            "size": size,
            "executors": executors,
            "batch": batch,
            "fan_in": args.fan_in,
            "engine": engines[executors],
            "step_s": spread(seconds[executors]),
            "images_per_s": batch / statistics.median(seconds[executors]),
            "parts_s": {name: statistics.median(part[name] for part in parts[executors]) for name in PARTS},
        }
        found.append(run)
        run["efficiency"] = run["images_per_s"] / executors / (found[0]["images_per_s"] / args.executors[0])
        text = f"{size}: {executors} executors, efficiency {run['efficiency']:.3f}"
        if args.separate:
            run["separate_s"] = spread(separate[executors])
            run["ceiling"] = found[0]["separate_s"]["median"] / run["separate_s"]["median"]
            text += f", ceiling {run['ceiling']:.3f}"
        print(text, flush=True)
    return found


def separate_steps(size: int, args: argparse.Namespace, processes: int) -> list[float]:
    """Seconds of steps on `args.images` images in each of so many engines at the same time."""
    context = multiprocessing.get_context("spawn")
    barrier, found = context.Barrier(processes), context.Queue()
    workers = [context.Process(target=_steps, args=(size, args, barrier, found)) for _ in range(processes)]
    for worker in workers:
        worker.start()
    seconds = [time for _ in workers for time in found.get()]
    for worker in workers:
        worker.join()
    return seconds


def _steps(size: int, args: argparse.Namespace, barrier, found) -> None:
    dataset = open_dataset("synthetic", "train", image_size=size, num_images=args.images, num_classes=1000)
    images = np.stack([dataset.image(i, 0) for i in range(args.images)])
    optimizer = TrainSettings(micro_batch=args.micro_batch).make_optimizer(1)
    with Engine(args.precision, parse_size(args.executor_memory), threads=1) as engine:
        state = State.fresh(ResNet(50, 1000, engine=engine, mean=dataset.mean, std=dataset.std))
        seconds = []
        for _ in range(WARMUP + args.steps):
            barrier.wait()
            began = time.perf_counter()
            state.update(images, dataset.labels, optimizer)
            seconds.append(time.perf_counter() - began)
    found.put(seconds[WARMUP:])


def main() -> None:
    """Measures and writes the file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 224])
    parser.add_argument("--executors", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--images", type=int, default=32, help="of an executor and step")
    parser.add_argument("--micro-batch", type=int, default=8)
    parser.add_argument("--precision", default="single")
    parser.add_argument("--executor-memory", default="5g")
    parser.add_argument("--heap", default="6g", help="of the driver")
    parser.add_argument("--fan-in", type=int, help="of the tree of sums")
    parser.add_argument("--separate", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--steps", type=int, default=5, help="of a round")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    results = [run for size in args.sizes for run in rounds(size, args)]
    if args.out:
        result = {
            "command": command_line(),
            "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "machine": machine(),
            "runs": results,
        }
        args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
