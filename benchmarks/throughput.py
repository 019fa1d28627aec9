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
import platform
import shlex
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import psutil

UPSTREAM_INIT = """
source("scripts/nn/networks/resnet50.dml") as resnet
[model, emas] = resnet::init(1000, 42)
op = resnet::init_lars_optim_params(1000)
"""
UPSTREAM_TRAIN = """
source("scripts/nn/networks/resnet50.dml") as resnet
source("scripts/nn/layers/softmax_cross_entropy_loss.dml") as loss_nn
[out, emas, cached_out, cached_means_vars] = resnet::forward(X, S, S, model, "train", emas)
dOut = loss_nn::backward(out, Y)
[dX, gradients] = resnet::backward(dOut, cached_out, model, cached_means_vars)
[model, op] = resnet::update_params_with_lars(model, gradients, 0.01, 0.9, 0.0001, 0.001, op)
loss = loss_nn::forward(out, Y)
"""
UPSTREAM_INFER = """
source("scripts/nn/networks/resnet50.dml") as resnet
[out, emas, cached_out, cached_means_vars] = resnet::forward(X, S, S, model, "test", emas)
loss = sum(out)
"""
THIN_REGISTRY = """
source("dml/network/initialization.dml") as initial
blocks = as.matrix(full["blocks"])
units = as.matrix(full["units"])
tensors = as.matrix(full["tensors"])
units[2:nrow(units),4] = units[2:nrow(units),4] / 16
units[,5] = units[,5] / 16
tensors[,4] = ceil(tensors[,4] / 16)
tensors[6:nrow(tensors),3] = ceil(tensors[6:nrow(tensors),3] / 16)
registry = list(blocks=blocks, units=units, tensors=tensors, channel_major=FALSE)
model = initial::init(registry, 42, FALSE)
"""


def data(batch: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Random images (N, H, W, 3) in 0..255 and labels."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (batch, size, size, 3), dtype=np.uint8), rng.integers(0, 1000, batch)


def ours(
    precision: str, blas: str, task: str, micro_batch: int | None = None
) -> Callable[[int, int], Callable[[], object]]:
    """This project, through its Python API."""

    def prepare(batch: int, size: int) -> Callable[[], object]:
        from sysds_resnet import ResNet
        from sysds_resnet.engine import Engine
        from sysds_resnet.train import TrainSettings
        from sysds_resnet.training.state import State

        images, labels = data(batch, size)
        model = ResNet(50, engine=Engine(precision, blas=blas))
        if task == "infer":
            return lambda: model.logits(images, batch_size=batch)
        settings = TrainSettings(base_lr=0.01, micro_batch=micro_batch or batch)
        state, optimizer = State.fresh(model), settings.make_optimizer(1000)
        return lambda: state.update(images, labels, optimizer)

    return prepare


def overhead(batch: int, size: int) -> Callable[[], object]:
    """A step of ResNet-50 with a sixteenth of its channels: all its operators, next to no arithmetic."""
    from sysds_resnet import ResNet
    from sysds_resnet.engine import Engine
    from sysds_resnet.train import TrainSettings
    from sysds_resnet.training.state import State

    images, labels = data(batch, size)
    model = ResNet(50, num_classes=1008, engine=Engine("bf16"))
    network = model.network
    thin = network.engine.run(
        THIN_REGISTRY, {"full": network.registry}, {"registry": "list", "model": "list"}
    )
    network.registry, network.num_classes, model.weights = thin["registry"], 63, thin["model"]
    state, optimizer = State.fresh(model), TrainSettings(micro_batch=batch).make_optimizer(1000)
    return lambda: state.update(images, labels % 63, optimizer)


def upstream(task: str) -> Callable[[int, int], Callable[[], object]]:
    """SystemDS's own nn/networks/resnet50.dml from the jar, on the same engine, JVM options and BLAS."""

    def prepare(batch: int, size: int) -> Callable[[], object]:
        from sysds_resnet.engine import Engine

        engine = Engine("single", blas="openblas")
        state = engine.run(UPSTREAM_INIT, {}, {"model": "list", "emas": "list", "op": "list"})
        images, labels = data(batch, size)
        inputs = {
            "X": images.transpose(0, 3, 1, 2).reshape(batch, -1) / 127.5 - 1,
            "Y": np.eye(1000)[labels],
            "S": size,
        }

        def step() -> None:
            program = UPSTREAM_TRAIN if task == "train" else UPSTREAM_INFER
            names = ("model", "emas", "op") if task == "train" else ("model", "emas")
            results = engine.run(
                program,
                {k: v for k, v in inputs.items() if task == "train" or k != "Y"}
                | {name: state[name] for name in names},
                {**dict.fromkeys(names, "list"), "loss": "double"},
            )
            if task == "train":
                state.update({name: results[name] for name in names})

        return step

    return prepare


def pytorch(
    task: str, channels_last: bool, double: bool = False, bf16: bool = False
) -> Callable[[int, int], Callable[[], object]]:
    """PyTorch on as many threads as there are cores, in bf16 by its autocast."""

    def prepare(batch: int, size: int) -> Callable[[], object]:
        sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))
        import torch
        from reference import ResNet

        torch.set_num_threads(len(os.sched_getaffinity(0)))
        images, labels = data(batch, size)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        kind = torch.float64 if double else torch.float32
        model = ResNet(50, num_classes=1000).to(dtype=kind, memory_format=layout)
        x = torch.tensor(images.transpose(0, 3, 1, 2) / 127.5 - 1, dtype=kind).to(memory_format=layout)
        y = torch.tensor(labels)
        optimizer = torch.optim.SGD(model.parameters(), 0.01, 0.9, weight_decay=1e-4)

        def forward() -> torch.Tensor:
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                return model(x)

        def train() -> None:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(forward().float() if bf16 else forward(), y).backward()
            optimizer.step()

        @torch.inference_mode()
        def infer() -> None:
            forward()

        if task == "infer":
            model.eval()
        return train if task == "train" else infer

    return prepare


PEERS = {
    "bf16": lambda task: ours("bf16", "auto", task),
    "single": lambda task: ours("single", "auto", task),
    "single, OpenBLAS": lambda task: ours("single", "openblas", task),
    "double": lambda task: ours("double", "auto", task),
    "plain Java": lambda task: ours("double", "none", task),
    "accumulated": lambda task: ours("bf16", "auto", task, micro_batch=32),
    "overhead": lambda task: overhead,
    "upstream": upstream,
    "PyTorch fp32": lambda task: pytorch(task, False),
    "PyTorch fp32 channels_last": lambda task: pytorch(task, True),
    "PyTorch fp64": lambda task: pytorch(task, False, double=True),
    "PyTorch bf16 channels_last": lambda task: pytorch(task, True, bf16=True),
}
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
    *((peer, "train", 8, 224) for peer in ("PyTorch fp32", "PyTorch fp64")),
    *(("double", "train", batch, 224) for batch in (8, 32)),
    *(("plain Java", "train", batch, 224) for batch in (8, 32)),
    ("bf16", "train", 16, 224),
    ("accumulated", "train", 256, 224),
    *((peer, "train", 2, 32) for peer in ("bf16", "single", "PyTorch fp32", "overhead")),
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


def spread(values: list[float]) -> dict[str, float]:
    """Median, least and most."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "n": len(values)}


def machine() -> dict[str, object]:
    """What the figures depend on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.split(":")[1].strip() for line in lines if "model name" in line), "unknown")
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "python": platform.python_version(),
        **{package: _version(package) for package in ("systemds", "numpy", "torch", "onednn-cpu-gomp")},
        "commit": subprocess.run(
            ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
        ).stdout.strip(),
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


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
        "command": shlex.join(["python", *sys.argv]),
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": machine(),
        "roofline": json.loads(done.stdout.splitlines()[-1]),
        "figures": {},
    }
    print(json.dumps(result["roofline"]), flush=True)
    for measurement in MEASUREMENTS:
        name = label(*measurement)
        if args.only and not any(text in name for text in args.only):
            continue
        # what the JVM compiles and the heap's first touch take some steps, of many images fewer
        large, small = measurement[2] > 64, measurement[3] < 64
        warmup, steps = (2, 3) if large else (30, 20) if small else (args.warmup, args.steps)
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
