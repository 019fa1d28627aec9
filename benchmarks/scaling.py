"""How training scales over processes of this machine, by the train command.

    python benchmarks/scaling.py [--on processes|spark] [--sizes 64 224] [--counts 1 2] [--out FILE.json]

ResNet-50 trains on synthetic images, so many a process and step, in processes of one thread each: those of
--processes, or those of a Spark cluster of separate processes on loopback (scripts/spark_cluster.sh) whose
executors have a core each, which is theirs alone but for the driver's work. The numbers of processes take
turns, round by round, since the speed of a machine that is shared with others drifts. The figures are medians
over the steps of all rounds, each after a warm-up, as metrics.jsonl has them.

Efficiency is images per second by thread, relative to the first number of processes; "beside_s" is what a
step costs beside computing gradients. What cores that share caches and memory can reach at all is measured
too: as many separate runs of one process at the same time, each on a core of its own ("separate_s"; "ceiling"
is their efficiency). With --threads 2 there is one more run, of one process with so many threads.
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
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from report import origin, spread

SCRIPT = Path(__file__).parents[1] / "scripts" / "spark_cluster.sh"
PARTS = ("compute_s", "take_s", "sum_s", "put_s", "update_s")
CORES = sorted(os.sched_getaffinity(0))


class Case(NamedTuple):
    """So many runs at the same time, each of so many processes with so many threads each."""

    runs: int
    processes: int
    threads: int


@contextmanager
def running_cluster(workers: int) -> Iterator[str]:
    """A cluster's URL; each worker keeps to a core, and so does the executor that it starts."""
    with tempfile.TemporaryDirectory() as folder:
        options = ["--workers", str(workers), "--memory", "2g", "--folder", folder]
        started = subprocess.run(
            ["bash", SCRIPT, "start", *options], stdout=subprocess.PIPE, text=True, check=True
        )
        try:
            for core, file in zip(CORES, sorted(Path(folder).glob("worker*.pid")), strict=False):
                for thread in os.listdir(f"/proc/{file.read_text().strip()}/task"):
                    os.sched_setaffinity(int(thread), [core])
            yield started.stdout.strip()
        finally:
            subprocess.run(["bash", SCRIPT, "stop", "--folder", folder], check=True)


def command(size: int, case: Case, url: str | None, args: argparse.Namespace) -> list[str]:
    """The command of a run, but for its folder."""
    batch = case.processes * case.threads * args.images
    options = ["--dataset", "synthetic", "--num-classes", "1000", "--image-size", size, "--epochs", 1]
    options += ["--num-images", batch * (args.warmup + args.steps), "--batch-size", batch]
    options += ["--micro-batch", args.micro_batch, "--warmup-epochs", 0, "--base-lr", 0.1]
    options += ["--precision", args.precision, "--workers", 1, "--save-minutes", 1000]
    if url:
        options += ["--engine", "spark", "--master", url, "--executors", case.processes]
        options += ["--executor-memory", args.heap]
    else:
        options += ["--processes", case.processes, "--heap", args.heap]
    return [sys.executable, "-m", "sysds_resnet.train", *map(str, options)]


def steps_of(size: int, case: Case, args: argparse.Namespace) -> list[dict]:
    """The lines of the steps after the warm-up, of all runs of a case."""
    with ExitStack() as stack:
        on_spark = args.on == "spark" and case.runs == case.threads == 1
        url = stack.enter_context(running_cluster(case.processes)) if on_spark else None
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        running, of_run = [], case.processes * case.threads
        for number in range(case.runs):
            cores = CORES if on_spark else CORES[number * of_run : (number + 1) * of_run]
            running.append(
                subprocess.Popen(
                    [*command(size, case, url, args), "--out", f"{folder}/{number}"],
                    stdout=subprocess.DEVNULL,
                    preexec_fn=partial(os.sched_setaffinity, 0, cores),
                )
            )
        assert not any([process.wait() for process in running])
        found = []
        for number in range(case.runs):
            text = Path(folder, str(number), "metrics.jsonl").read_text()
            lines = [json.loads(line) for line in text.splitlines()]
            found += [line for line in lines if line["event"] == "step"][args.warmup :]
    print(f"{size}: {case}, steps of {[round(line['seconds'], 3) for line in found]} s", flush=True)
    return found


def rounds(size: int, args: argparse.Namespace) -> list[dict]:
    """What all numbers of processes came to."""
    cases = [Case(1, count, 1) for count in args.counts]
    separate = [Case(count, 1, 1) for count in args.counts if count > 1]
    threads = [Case(1, 1, args.threads)] if args.threads > 1 else []
    steps: dict[Case, list[dict]] = {}
    for _ in range(args.rounds):
        for case in [*cases, *separate, *threads]:
            steps.setdefault(case, []).extend(steps_of(size, case, args))
    found: list[dict] = []
    for case in [*cases, *threads]:
        lines, of_run = steps[case], case.processes * case.threads
        seconds = [line["seconds"] for line in lines]
        run = {
            "size": size,
            "on": args.on if case.threads == 1 else "processes",
            "processes": case.processes,
            "threads": case.threads,
            "batch": of_run * args.images,
            "step_s": spread(seconds),
            "images_per_s": of_run * args.images / statistics.median(seconds),
        }
        if all(name in lines[0] for name in PARTS):
            run["parts_s"] = {name: statistics.median(line[name] for line in lines) for name in PARTS}
            each = [line["compute_s"] for line in lines]
            run["compute_each_s"] = {**spread(each), "deviation": statistics.stdev(each)}
            run["beside_s"] = spread([line["seconds"] - line["compute_s"] for line in lines])
        found.append(run)
        first = found[0]["step_s"]["median"] / found[0]["batch"] * found[0]["processes"]
        run["efficiency"] = first / (run["step_s"]["median"] / run["batch"] * of_run)
        if case.processes > 1:
            run["separate_s"] = spread([line["seconds"] for line in steps[Case(case.processes, 1, 1)]])
            run["ceiling"] = first / (run["separate_s"]["median"] / args.images)
        ceiling = run.get("ceiling", 1.0)
        print(f"{size}: {case}: efficiency {run['efficiency']:.3f} of {ceiling:.3f}", flush=True)
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
    parser.add_argument("--warmup", type=int, default=12, help="steps before, in which the JVMs compile")
    parser.add_argument("--steps", type=int, default=5, help="of a round")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    results = [run for size in args.sizes for run in rounds(size, args)]
    if args.out:
        args.out.write_text(json.dumps({**origin(), "runs": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
