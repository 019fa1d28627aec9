"""Images per second of ResNet-50 training and inference: this project, upstream's DML, and PyTorch.

    python benchmarks/throughput.py [--size 224] [--batch 8] [--steps 8] [--warmup 4] [--out FILE.json]

Every peer runs in a process of its own, one after the other, on the same machine and with the same batch.
A figure is the median over the steps after the warm-up; the file holds all of them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

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


def data(batch: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Random images (N, H, W, 3) in 0..255 and labels."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (batch, size, size, 3), dtype=np.uint8), rng.integers(0, 1000, batch)


def ours(precision: str, blas: str, task: str) -> Callable[[int, int], Callable[[], object]]:
    """This project, through its Python API."""

    def prepare(batch: int, size: int) -> Callable[[], object]:
        from sysds_resnet.engine import Engine
        from sysds_resnet.model import ResNet
        from sysds_resnet.state import State
        from sysds_resnet.train import TrainSettings

        images, labels = data(batch, size)
        model = ResNet(50, engine=Engine(precision, blas=blas))
        if task == "infer":
            return lambda: model.logits(images, batch_size=batch)
        settings = TrainSettings(base_lr=0.01, micro_batch=batch)
        state, optimizer = State.fresh(model), settings.make_optimizer(1000)
        return lambda: state.update(images, labels, optimizer)

    return prepare


def upstream(task: str) -> Callable[[int, int], Callable[[], object]]:
    """SystemDS's own nn/networks/resnet50.dml from the jar, on the same engine, JVM options and BLAS."""

    def prepare(batch: int, size: int) -> Callable[[], object]:
        from sysds_resnet.engine import Engine

        engine = Engine("single")
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
    task: str, channels_last: bool, double: bool = False
) -> Callable[[int, int], Callable[[], object]]:
    """PyTorch on as many threads as there are cores."""

    def prepare(batch: int, size: int) -> Callable[[], object]:
        sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
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

        def train() -> None:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()

        @torch.inference_mode()
        def infer() -> None:
            model(x)

        if task == "infer":
            model.eval()
        return train if task == "train" else infer

    return prepare


PEERS = {
    f"{name} {task}": make(task)
    for task in ("train", "infer")
    for name, make in {
        "sysds_resnet single": lambda task: ours("single", "auto", task),
        "sysds_resnet double": lambda task: ours("double", "auto", task),
        "sysds_resnet plain Java": lambda task: ours("double", "none", task),
        "upstream nn/resnet50.dml": upstream,
        "PyTorch fp32": lambda task: pytorch(task, False),
        "PyTorch fp32 channels_last": lambda task: pytorch(task, True),
        "PyTorch fp64": lambda task: pytorch(task, False, True),
    }.items()
}


def measure(peer: str, batch: int, size: int, warmup: int, steps: int) -> list[float]:
    """Seconds of each step after the warm-up."""
    step = PEERS[peer](batch, size)
    seconds = []
    for _ in range(warmup + steps):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    return seconds[warmup:]


def machine() -> dict[str, object]:
    """What the figures depend on."""
    import psutil

    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.split(":")[1].strip() for line in lines if "model name" in line), "unknown")
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "python": platform.python_version(),
        **{package: _version(package) for package in ("systemds", "numpy", "torch", "sysds-resnet")},
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
    """Runs the peers and writes the file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--warmup", type=int, default=4)
    parser.add_argument("--peers", nargs="*", default=list(PEERS), choices=list(PEERS))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.one, args.batch, args.size, args.warmup, args.steps)))
        return
    figures = {}
    for peer in args.peers:
        options = [f"--{k}={getattr(args, k)}" for k in ("size", "batch", "steps", "warmup")]
        done = subprocess.run(
            [sys.executable, __file__, "--one", peer, *options], capture_output=True, text=True, check=False
        )
        if done.returncode:
            sys.exit(f"{peer}: {done.stderr.strip().splitlines()[-1]}")
        speeds = [args.batch / seconds for seconds in json.loads(done.stdout.splitlines()[-1])]
        figures[peer] = {
            "median": statistics.median(speeds),
            "min": min(speeds),
            "max": max(speeds),
            "n": len(speeds),
            "images_per_s": speeds,
        }
        print(
            f"{peer:32s} {statistics.median(speeds):7.2f} images/s  ({min(speeds):.2f} to {max(speeds):.2f})"
        )
    result = {
        "command": shlex.join(["python", *sys.argv]),
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": machine(),
        "batch": args.batch,
        "size": args.size,
        "figures": figures,
    }
    if args.out:
        args.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
