"""ResNet-50 on an NVIDIA GPU: parity with the CPU, proof that it runs there, speed and memory beside PyTorch.

    python benchmarks/gpu.py [--batches 32 64 128 256] [--steps 5] [--warmup 2] [--out FILE.json]

Each precision, and PyTorch, runs in a process of its own, one after the other, on the same card. A figure is
the median over the steps after the warm-up; the file holds all of them. What is not run again stays in it.
Where there are several GPUs, all together are measured too.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
from report import command_line, machine
from throughput_peers import data

from sysds_resnet import ResNet
from sysds_resnet.engine import Engine
from sysds_resnet.engine.gpu.cuda import gpu_count
from sysds_resnet.train import TrainSettings
from sysds_resnet.training.gradients import compute_gradients
from sysds_resnet.training.state import State

SIZE = 224
SCORED = 8  # batches at once
OURS = ("single", "tf32")
TORCH = ("fp32", "tf32", "amp", "amp channels_last")


def timed(step: Callable[[], object], warmup: int, steps: int) -> list[float]:
    """Seconds of each step after the warm-up."""
    seconds = []
    for _ in range(warmup + steps):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    return seconds[warmup:]


def ours(precision: str, batches: list[int], warmup: int, steps: int, gpus: int = 1) -> dict[str, object]:
    """Seconds of training steps and of scoring, and bytes in use, for each batch size, of each GPU."""
    found = {}
    with Engine(precision, gpus=range(gpus)) as engine:
        model = ResNet(50, engine=engine)
        state = State.fresh(model)
        for batch in (batch * gpus for batch in batches):
            images, labels = data(batch, SIZE)
            optimizer = TrainSettings(base_lr=0.01, micro_batch=batch // gpus).make_optimizer(1000)
            with ThreadPoolExecutor(1) as sender:  # as training/steps.py does
                ahead = [sender.submit(state.send, images, optimizer)]

                def step(
                    labels=labels, optimizer=optimizer, images=images, ahead=ahead, sender=sender
                ) -> None:
                    sent = ahead.pop().result()
                    ahead.append(sender.submit(state.send, images, optimizer))
                    state.update(sent, labels, optimizer)

                seconds = timed(step, warmup, steps)
            free, total = engine.gpu_memory()
            many = np.concatenate([images] * SCORED)  # sent while others are scored
            scoring = timed(lambda many=many, batch=batch: model.logits(many, batch), 1, steps)
            found[batch] = {
                "train_s": seconds,
                "infer_s": [each / SCORED for each in scoring],
                "used_gb": (total - free) / 1e9,
            }
            print(row(f"{precision} x {gpus}", batch, found[batch]), flush=True)
    return found


def operators(precision: str, batch: int) -> dict[str, object]:
    """Where the seconds of a step go, by the engine's instructions, one after the other."""
    with Engine(precision, gpus=[0]) as engine:
        state = State.fresh(ResNet(50, engine=engine))
        images, labels = data(batch, SIZE)
        optimizer = TrainSettings(base_lr=0.01, micro_batch=batch).make_optimizer(1000)
        for _ in range(2):
            state.update(images, labels, optimizer)
        with engine.gpu_operators() as gradients:
            done = state._gradients(images, labels, optimizer)
        with engine.gpu_operators() as update:
            state.apply(*done, optimizer)
    found = {"gradients": gradients, "update": update}
    for name, of_part in found.items():
        longest = sorted(of_part.items(), key=lambda item: -item[1].seconds)
        print(
            precision, name, *(f"{key} {value.seconds:.4f} s {value.count};" for key, value in longest[:22])
        )
    return {name: {k: astuple(v) for k, v in of_part.items()} for name, of_part in found.items()}


def pytorch(mode: str, batches: list[int], warmup: int, steps: int) -> dict[str, object]:
    """The same of PyTorch, with images that are on the card already."""
    import torch
    import torchvision

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = mode != "fp32"
    torch.backends.cudnn.benchmark = True
    layout = torch.channels_last if "channels_last" in mode else torch.contiguous_format
    model = torchvision.models.resnet50().cuda().to(memory_format=layout)
    optimizer = torch.optim.SGD(model.parameters(), 0.01, 0.9, weight_decay=1e-4)
    scaler = torch.amp.GradScaler(enabled="amp" in mode)
    found = {}
    for batch in batches:
        images, labels = data(batch, SIZE)
        x = (
            torch.tensor(images.transpose(0, 3, 1, 2) / 127.5 - 1, dtype=torch.float32)
            .cuda()
            .to(memory_format=layout)
        )
        y = torch.tensor(labels).cuda()
        torch.cuda.reset_peak_memory_stats()

        def train(x=x, y=y) -> None:
            optimizer.zero_grad()
            with torch.autocast("cuda", torch.float16, enabled="amp" in mode):
                loss = torch.nn.functional.cross_entropy(model(x), y)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            torch.cuda.synchronize()

        @torch.inference_mode()
        def infer(x=x) -> None:
            with torch.autocast("cuda", torch.float16, enabled="amp" in mode):
                model(x)
            torch.cuda.synchronize()

        model.train()
        seconds = timed(train, warmup + 2, steps)
        model.eval()
        scoring = timed(infer, 2, steps)
        used = torch.cuda.max_memory_reserved() / 1e9
        found[batch] = {"train_s": seconds, "infer_s": scoring, "used_gb": used}
        print(row(f"torch {mode}", batch, found[batch]), flush=True)
    return found


def parity(depth: int = 50, size: int = 64, n: int = 4, seeds: range = range(3, 6)) -> dict[str, object]:
    """Relative errors of the GPU's gradients and logits of a few images, against the CPU's in FP64.

    Each error is a list, one value for each seed of weights and images; what counts is its median. In FP32
    some ReLU decides otherwise by a rounding now and then, and in the last stages a single one is an error of
    1e-3 and more of the whole gradient; the median is without them, the maximum is not.
    """
    cases = {"cpu": {"precision": "double"}}
    cases |= {name: {"precision": name, "gpus": [0]} for name in ("double", "single", "tf32")}
    found = {}
    for name, arguments in cases.items():
        with Engine(**arguments) as engine:
            found[name] = [gradients(engine, depth, size, n, seed) for seed in seeds]
    errors = {}
    for name in list(cases)[1:]:
        each = [relative_errors(*pair) for pair in zip(found[name], found["cpu"], strict=True)]
        errors[name] = {key: [error[key] for error in each] for key in each[0]}
        print("parity", name, errors[name], flush=True)
    return errors


def gradients(engine: Engine, depth: int, size: int, n: int, seed: int) -> dict[str, np.ndarray]:
    """The gradients of a fresh network's trained tensors, by name, and its logits under "logits".

    Blocks begin as identities: FP32 keeps 6 digits of such a network's gradient, of others 2.
    """
    images, labels = data(n, size, seed)
    model = ResNet(depth, 10, seed=seed, zero_init_residual=True, engine=engine)
    optimizer = TrainSettings(base_lr=0.1, micro_batch=n).make_optimizer(10)
    sums, _ = compute_gradients(model, images, labels % 10, optimizer)
    tensors = model.network.from_engine(sums)
    return {key: value for key, value in tensors.items() if "running" not in key} | {
        "logits": model.logits(images)
    }


def relative_errors(found: dict[str, np.ndarray], exact: dict[str, np.ndarray]) -> dict[str, float]:
    """The error of the whole gradient, the largest of one tensor's, and the largest of a logit."""
    tensors = [key for key in exact if key != "logits"]
    wrong = {key: float(np.linalg.norm(found[key] - exact[key])) for key in tensors}
    sizes = {key: float(np.linalg.norm(exact[key])) for key in tensors}
    logits = np.abs(found["logits"] - exact["logits"]).max() / np.abs(exact["logits"]).max()
    return {
        "gradient": math.hypot(*wrong.values()) / math.hypot(*sizes.values()),
        # within blocks that are identities gradients are 0
        "worst_tensor": max(wrong[key] / (sizes[key] or 1.0) for key in tensors),
        "logits": float(logits),
    }


def main() -> None:
    """Runs everything, or as a child one part of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batches", type=int, nargs="+", default=[32, 64, 128, 256])
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--only", nargs="+", help="names of parts, such as single or 'torch fp32'")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/gpu.json"))
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    measure = (arguments.batches, arguments.warmup, arguments.steps)
    parts = {"parity": parity}
    parts |= {name: lambda name=name: ours(name, *measure) for name in OURS}
    if (count := gpu_count()) > 1:
        parts |= {f"{name} x {count}": lambda name=name: ours(name, *measure, gpus=count) for name in OURS}
    parts |= {f"operators {name}": lambda name=name: operators(name, max(arguments.batches)) for name in OURS}
    parts |= {f"torch {mode}": lambda mode=mode: pytorch(mode, *measure) for mode in TORCH}
    if arguments.child:
        name, out = arguments.child
        Path(out).write_text(json.dumps(parts[name]()))
        return
    result = {
        "command": command_line(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": machine(),
        "card": card(),
        "parts": {},
    }
    if arguments.out.exists() and (before := json.loads(arguments.out.read_text()))["card"] == result["card"]:
        result["parts"] = before["parts"]
    for name in parts:
        if arguments.only and name not in arguments.only:
            continue
        with tempfile.NamedTemporaryFile() as file:
            command = [sys.executable, __file__, "--child", name, file.name, "--steps", str(arguments.steps)]
            command += ["--warmup", str(arguments.warmup), "--batches", *map(str, arguments.batches)]
            done = subprocess.run(command, check=False, env=os.environ)
            text = Path(file.name).read_text()
            result["parts"][name] = json.loads(text) if done.returncode == 0 else None
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    print(table(result))


def table(result: dict) -> str:
    """Images a second and gigabytes, by part and batch; errors of gradients."""
    lines = [result["card"]]
    for name, part in result["parts"].items():
        if part is None:
            lines.append(f"{name}: failed")
        elif name == "parity":
            for kind, errors in part.items():
                medians = (f"{error} {statistics.median(each):.1e}" for error, each in errors.items())
                lines.append(f"parity {kind}: {', '.join(medians)}")
        elif not name.startswith("operators"):
            lines += [row(name, int(batch), found) for batch, found in part.items()]
    return "\n".join(lines)


def row(name: str, batch: int, found: dict) -> str:
    """A part's images a second and gigabytes with one batch size."""
    train, infer = (batch / statistics.median(found[key]) for key in ("train_s", "infer_s"))
    used = found["used_gb"]
    return f"{name:18s} batch {batch:4d}  train {train:7.0f}/s  infer {infer:7.0f}/s  {used:5.1f} GB"


def card() -> str:
    """The GPU and its driver, as nvidia-smi tells them."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    return subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    main()
