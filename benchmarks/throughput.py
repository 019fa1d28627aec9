"""ResNet-50 training and inference side by side: this project, upstream's DML, and PyTorch.

    python benchmarks/throughput.py [--only TEXT ...] [--steps 5] [--warmup 8] [--out FILE.json]

Every measurement runs in a process of its own, one after the other, on the same machine; so do those of what
the machine can do (the roofline). A figure is the median over the steps after the warm-up; the file holds all
of them, the largest resident memory of the process and its children, and the ratios that the project is
measured by.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
from report import origin
from throughput_peers import PEERS

# (peer, task, batch, image size). Upstream does not finish four steps of 32 in six minutes.
MEASUREMENTS = [
    *(("upstream", task, 8, 224) for task in ("train", "infer")),
    *(
        (peer, task, batch, 224)
        for task in ("train", "infer")
        for peer in (
            *("PyTorch fp32 channels_last", "PyTorch bf16 channels_last"),
            *("bf16", "single", "single, OpenBLAS"),
        )
        for batch in (8, 32)
    ),
    *(
        (f"PyTorch {kind} compiled", task, 32, 224)
        for task in ("train", "infer")
        for kind in ("fp32", "bf16")
    ),
    *((peer, "train", 8, 224) for peer in ("PyTorch fp32", "PyTorch fp64")),
    *(("double", "train", batch, 224) for batch in (8, 32)),
    *(("plain Java", "train", batch, 224) for batch in (8, 32)),
    ("bf16", "train", 16, 224),
    ("accumulated", "train", 256, 224),
    *((peer, "train", 2, 32) for peer in ("bf16", "single", "PyTorch fp32", "overhead")),
    *((peer, "train", 64, 32) for peer in ("single", "PyTorch fp32 channels_last")),
    *((f"ResNet-18 {peer}", "train", 128, 32) for peer in ("bf16", "single", "PyTorch fp32", "PyTorch bf16")),
]


def measure(peer: str, task: str, batch: int, size: int, warmup: int, steps: int) -> dict[str, object]:
    """Seconds of each step after the warm-up, and from the start of the process to the first one's end."""
    started = psutil.Process().create_time()
    step = PEERS[peer](task)(batch, size)
    seconds, first = [], None
    for _ in range(warmup + steps):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
        first = first or time.time() - started
    return {"seconds": seconds[warmup:], "first_step_s": first}


def roofline() -> dict[str, float]:
    """What the machine can do: GFLOP/s of a large multiply, and GB/s of a sum of large vectors."""
    import torch

    from sysds_resnet.engine.jvm import multiply as blas

    torch.set_num_threads(len(os.sched_getaffinity(0)))

    def fastest(work: Callable[[], object]) -> float:
        seconds = []
        for _ in range(8):
            start = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - start)
        return min(seconds)

    figures, n = {}, 3072
    # where a CPU has no bf16 multiplies PyTorch takes minutes for one
    for kind in (torch.float64, torch.float32, *([torch.bfloat16] if blas.has_bf16() else [])):
        a, b = torch.randn(n, n).to(kind), torch.randn(n, n).to(kind)
        figures[f"multiply_{str(kind).split('.')[1]}_gflops"] = 2e-9 * n**3 / fastest(lambda a=a, b=b: a @ b)
    x, y, z = (torch.ones(2**26) for _ in range(3))
    figures["memory_gb_per_s"] = 3 * 4e-9 * 2**26 / fastest(lambda: torch.add(x, y, out=z))
    return figures


def ratios(figures: dict[str, dict]) -> dict[str, float]:
    """The project's bars, from the figures that are there."""

    def speed(peer: str, task: str, *batches: int) -> float:
        """Of the fastest of these batches."""
        found = [figures.get(label(peer, task, batch, 224), {}).get("images_per_s") for batch in batches]
        return max((value for value in found if value), default=math.nan)

    def small(peer: str, other: str, batch: int) -> float:
        """Of ResNets on images of 32 x 32."""
        found = [
            figures.get(label(p, "train", batch, 32), {}).get("images_per_s", math.nan) for p in (peer, other)
        ]
        return found[0] / found[1]

    def seconds_per_image(batch: int, peer: str = "bf16") -> float:
        return 1 / speed(peer, "train", batch)

    both = (8, 16, 32)
    upstream_train = speed("upstream", "train", 8)
    channels_last, torch_bf16 = "PyTorch fp32 channels_last", "PyTorch bf16 channels_last"
    return {
        "train: OpenBLAS alone / upstream": max(
            speed("single, OpenBLAS", "train", *both), speed("double", "train", *both)
        )
        / upstream_train,
        "train: best mode / upstream": speed("bf16", "train", *both) / upstream_train,
        "train: single / upstream": speed("single", "train", *both) / upstream_train,
        "train: best mode / PyTorch fp32 channels_last": speed("bf16", "train", *both)
        / speed(channels_last, "train", *both),
        "train: single / PyTorch fp32 channels_last": speed("single", "train", *both)
        / speed(channels_last, "train", *both),
        "train: bf16 / PyTorch bf16 channels_last": speed("bf16", "train", *both)
        / speed(torch_bf16, "train", *both),
        "train: double / PyTorch fp64": speed("double", "train", *both) / speed("PyTorch fp64", "train", 8),
        "infer: best mode / PyTorch fp32 channels_last": speed("bf16", "infer", *both)
        / speed(channels_last, "infer", *both),
        "infer: bf16 / PyTorch bf16 channels_last": speed("bf16", "infer", *both)
        / speed(torch_bf16, "infer", *both),
        **{
            f"{task}: {ours} / PyTorch {theirs} compiled": speed(ours, task, *both)
            / speed(f"PyTorch {theirs} compiled", task, 32)
            for task in ("train", "infer")
            for ours, theirs in (("single", "fp32"), ("bf16", "bf16"))
        },
        "train 64 of 32 x 32: single / PyTorch fp32 channels_last": small(
            "single", "PyTorch fp32 channels_last", 64
        ),
        "train ResNet-18, 128 of 32 x 32: single / PyTorch fp32 channels_last": small(
            "ResNet-18 single", "ResNet-18 PyTorch fp32", 128
        ),
        "train ResNet-18, 128 of 32 x 32: bf16 / PyTorch bf16 channels_last": small(
            "ResNet-18 bf16", "ResNet-18 PyTorch bf16", 128
        ),
        "train: plain Java / upstream": speed("plain Java", "train", *both) / upstream_train,
        "train: seconds an image at 32 / at 8": seconds_per_image(32) / seconds_per_image(8),
        "train: seconds an image at 256 in 32s / at 32": seconds_per_image(256, "accumulated")
        / seconds_per_image(32),
    }


def label(peer: str, task: str, batch: int, size: int) -> str:
    """A measurement's name."""
    return f"{peer}, {task}, {batch} x {size} x {size}"


def run(peer: str, task: str, batch: int, size: int, warmup: int, steps: int) -> dict[str, object]:
    """A measurement in a process of its own, with the largest resident memory of it and its children."""
    command = [sys.executable, __file__, "--one", json.dumps([peer, task, batch, size, warmup, steps])]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    peak = 0

    def watch() -> None:
        nonlocal peak
        while process.poll() is None:
            try:
                parent = psutil.Process(process.pid)
                family = [parent, *parent.children(recursive=True)]
                peak = max(peak, sum(member.memory_info().rss for member in family))
            except psutil.NoSuchProcess:
                pass
            time.sleep(0.2)

    watcher = threading.Thread(target=watch)
    watcher.start()
    out, errors = process.communicate()
    watcher.join()
    if process.returncode:
        sys.exit(f"{label(peer, task, batch, size)}: {errors.strip().splitlines()[-1]}")
    measured = json.loads(out.splitlines()[-1])
    seconds = measured["seconds"]
    return {
        "images_per_s": batch / statistics.median(seconds),
        "min": batch / max(seconds),
        "max": batch / min(seconds),
        "n": len(seconds),
        "seconds": seconds,
        "first_step_s": measured["first_step_s"],
        "peak_rss_gb": peak / 1e9,
    }


def main() -> None:
    """Runs the measurements and writes the file after each."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="*", help="measurements whose name contains one of these")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--warmup", type=int, default=8)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(roofline() if args.one == "roofline" else measure(*json.loads(args.one))))
        return
    command = [sys.executable, __file__, "--one", "roofline"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result = {
        **origin(),
        "roofline": json.loads(done.stdout.splitlines()[-1]),
        "figures": {},
    }
    print(json.dumps(result["roofline"]), flush=True)
    for measurement in MEASUREMENTS:
        name = label(*measurement)
        if args.only and not any(text in name for text in args.only):
            continue
        # what the JVM compiles and the heap's first touch take some steps, of many images fewer
        small = measurement[3] < 64
        large = measurement[2] > 64 and not small
        warmup, steps = (2, 3) if large else (100, 30) if small else (args.warmup, args.steps)
        figure = result["figures"][name] = run(*measurement, warmup, steps)
        print(
            f"{name:50s} {figure['images_per_s']:7.2f} images/s "
            f"({figure['min']:.2f} to {figure['max']:.2f}), "
            f"first step after {figure['first_step_s']:.1f} s, {figure['peak_rss_gb']:.1f} GB",
            flush=True,
        )
        result["ratios"] = {k: v for k, v in ratios(result["figures"]).items() if not math.isnan(v)}
        if args.out:
            args.out.write_text(json.dumps(result, indent=1) + "\n")
    for name, value in result.get("ratios", {}).items():
        print(f"{name:60s} {value:.2f}")


if __name__ == "__main__":
    main()
