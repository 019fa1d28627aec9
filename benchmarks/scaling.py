"""How training scales over processes of this machine, by the train command.

    python benchmarks/scaling.py [--on processes|spark] [--sizes 64 224] [--counts 1 2] [--out FILE.json]

ResNet-50 trains on synthetic images, so many a process and step, in processes of one thread each: those of
--processes, or those of a Spark cluster of separate processes on loopback (scripts/spark_cluster.sh) whose
executors have a core each. The numbers of processes take turns, round by round, since the speed of a machine
that is shared with others drifts. The figures are medians over the steps of all rounds, each after a
warm-up, as metrics.jsonl has them. Efficiency is images per second by thread, relative to the first number of
processes; "beside_s" is what a step costs beside computing gradients. With --threads 2 there is one more run,
of one process with so many threads.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from report import origin, spread

WARMUP = 12  # steps in which the JVMs compile what runs often
SCRIPT = Path(__file__).parents[1] / "scripts" / "spark_cluster.sh"
PARTS = ("compute_s", "take_s", "sum_s", "put_s", "update_s")


@contextmanager
def running_cluster(workers: int) -> Iterator[str]:
    """A cluster's URL."""
    with tempfile.TemporaryDirectory() as folder:
        options = ["--workers", str(workers), "--memory", "2g", "--folder", folder]
        started = subprocess.run(
            ["bash", SCRIPT, "start", *options], stdout=subprocess.PIPE, text=True, check=True
        )
        try:
            yield started.stdout.strip()
        finally:
            subprocess.run(["bash", SCRIPT, "stop", "--folder", folder], check=True)


def steps_of(size: int, count: int, threads: int, args: argparse.Namespace) -> list[dict]:
    """The lines of the steps after the warm-up, of a run of so many processes with so many threads each."""
    batch = count * args.images * threads
    options = ["--dataset", "synthetic", "--num-classes", "1000", "--image-size", size, "--epochs", 1]
    options += ["--num-images", batch * (WARMUP + args.steps), "--batch-size", batch]
    options += ["--micro-batch", args.micro_batch, "--warmup-epochs", 0, "--base-lr", 0.1]
    options += ["--precision", args.precision, "--workers", 1, "--save-minutes", 1000]
    on_spark = args.on == "spark" and threads == 1
    with (
        running_cluster(count) if on_spark else nullcontext() as url,
        tempfile.TemporaryDirectory() as folder,
    ):
        if on_spark:
            options += ["--engine", "spark", "--master", url, "--executors", count]
            options += ["--executor-memory", args.heap]
        else:
            options += ["--processes", count, "--heap", args.heap]
        command = [sys.executable, "-m", "sysds_resnet.train", *map(str, options), "--out", f"{folder}/run"]
        cores = sorted(os.sched_getaffinity(0))[: count * threads]
        subprocess.run(
            command,
            check=True,
            stdout=subprocess.DEVNULL,
            preexec_fn=lambda: os.sched_setaffinity(0, cores) if not on_spark else None,
        )
        lines = [json.loads(line) for line in Path(folder, "run", "metrics.jsonl").read_text().splitlines()]
    found = [line for line in lines if line["event"] == "step"][WARMUP:]
    seconds = [round(line["seconds"], 3) for line in found]
    print(f"{size}: {count} processes of {threads} threads, steps of {seconds} s", flush=True)
    return found


def rounds(size: int, args: argparse.Namespace) -> list[dict]:
    """What all numbers of processes came to."""
    cases = [(count, 1) for count in args.counts]
    cases += [(1, args.threads)] if args.threads > 1 else []
    steps: dict[tuple[int, int], list[dict]] = {}
    for _ in range(args.rounds):
        for case in cases:
            steps.setdefault(case, []).extend(steps_of(size, *case, args))
    found = []
    for (count, threads), lines in steps.items():
        batch = count * threads * args.images
        run = {
            "size": size,
            "on": args.on if threads == 1 else "processes",
            "processes": count,
            "threads": threads,
            "batch": batch,
            "step_s": spread([line["seconds"] for line in lines]),
            "images_per_s": batch / statistics.median(line["seconds"] for line in lines),
        }
        if all(name in lines[0] for name in PARTS):
            run["parts_s"] = {name: statistics.median(line[name] for line in lines) for name in PARTS}
            each = [line["compute_s"] for line in lines]
            run["compute_each_s"] = {**spread(each), "deviation": statistics.stdev(each)}
            run["beside_s"] = spread([line["seconds"] - line["compute_s"] for line in lines])
        found.append(run)
        cores = count * threads
        run["efficiency"] = run["images_per_s"] / cores / (found[0]["images_per_s"] / found[0]["processes"])
        print(f"{size}: {count} of {threads}: efficiency {run['efficiency']:.3f}", flush=True)
    return found


def main() -> None:
    """Measures and writes the file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--on", choices=["processes", "spark"], default="processes")
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 224])
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 2], help="of processes")
    parser.add_argument("--threads", type=int, default=1, help="of one more run, of one process")
    parser.add_argument("--images", type=int, default=32, help="of a process and step, for each thread")
    parser.add_argument("--micro-batch", type=int, default=8)
    parser.add_argument("--precision", default="single")
    parser.add_argument("--heap", default="5g", help="of each process")
    parser.add_argument("--steps", type=int, default=5, help="of a round")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    results = [run for size in args.sizes for run in rounds(size, args)]
    if args.out:
        result = {
            **origin(),
            "runs": results,
        }
        args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
