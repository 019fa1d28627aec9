"""The other side of benchmarks/convergence.py: the same recipe in PyTorch, from the same start."""

from __future__ import annotations

import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.nn import functional

sys.path.append(str(Path(__file__).parents[1] / "tests" / "support"))
from reference import ResNet as Reference

from sysds_resnet.batches.order import sequential_order
from sysds_resnet.batches.readers import Readers
from sysds_resnet.batches.stream import BatchStream
from sysds_resnet.images import Dataset
from sysds_resnet.training.settings import TrainSettings

FIRST = 5  # steps whose losses are kept


@dataclass(frozen=True)
class Start:
    """What a run of ours begins with and goes by: weights, learning rates by step, orders by epoch."""

    weights: dict[str, np.ndarray]
    rates: np.ndarray
    orders: list[np.ndarray]


class Lars(torch.optim.Optimizer):
    """LARS in the MLPerf form: the learning rate inside the velocity, the decay inside the denominator."""

    @torch.no_grad()
    def step(self) -> None:
        """Updates all parameters; in groups without a trust_coeff as SGD."""
        for group in self.param_groups:
            for w in group["params"]:
                update, decay = w.grad + group["weight_decay"] * w, group["weight_decay"]
                norm, grad_norm = w.norm(), w.grad.norm()
                if group["trust_coeff"] and norm > 0 and grad_norm > 0:
                    update *= group["trust_coeff"] * norm / (grad_norm + decay * norm)
                velocity = self.state[w].setdefault("velocity", torch.zeros_like(w))
                velocity.mul_(group["momentum"]).add_(update, alpha=group["lr"])
                w.sub_(velocity)


def make_optimizer(model: torch.nn.Module, settings: TrainSettings) -> torch.optim.Optimizer:
    """The run's optimizer: filters and the final weight decay and are scaled, norms and biases neither."""
    groups = [
        {"params": [w for w in model.parameters() if w.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [w for w in model.parameters() if w.ndim == 1], "weight_decay": 0.0, "trust_coeff": 0.0},
    ]
    if settings.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=1.0, momentum=settings.momentum)
    return Lars(groups, {"lr": 1.0, "momentum": settings.momentum, "trust_coeff": settings.trust_coeff})


def tensors(images: np.ndarray, dataset: Dataset, layout: torch.memory_format) -> torch.Tensor:
    """Normalised images (N, C, H, W) in FP32 of uint8 images (N, H, W, C)."""
    pixels = ((images - dataset.mean) / dataset.std).astype(np.float32)
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(memory_format=layout)


@torch.no_grad()
def evaluate(
    model: torch.nn.Module, dataset: Dataset, readers: Readers, layout: torch.memory_format
) -> dict[str, float]:
    """Mean loss and top-1 on a whole data set."""
    model.eval()
    loss, hits, order = 0.0, 0, sequential_order(len(dataset))
    with BatchStream(dataset, order, 60, readers, drop_last=False, epochs=1) as stream:
        for batch in stream:
            logits, labels = model(tensors(batch.images, dataset, layout)), torch.from_numpy(batch.labels)
            loss += functional.cross_entropy(logits, labels, reduction="sum").item()
            hits += int((logits.argmax(dim=1) == labels).sum())
    model.train()
    return {"val_loss": loss / len(dataset), "val_top1": hits / len(dataset)}


def train_pytorch(
    start: Start, settings: TrainSettings, sets: list[Dataset], layout: torch.memory_format
) -> dict[str, Any]:
    """The run in PyTorch, from the same start and on the same batches."""
    model = Reference(settings.depth, sets[0].num_classes, sets[0].channels)
    weights = {name: torch.from_numpy(value) for name, value in start.weights.items()}
    model.load_state_dict({**model.state_dict(), **weights})  # ours have no counters of batches
    model = model.to(memory_format=layout).train()
    optimizer = make_optimizer(model, settings)
    order, size = start.orders.__getitem__, settings.batch_size
    losses, epochs = [], []
    with (
        Readers(sets) as readers,
        BatchStream(sets[0], order, size, readers, drop_last=True, epochs=settings.epochs) as stream,
    ):
        for batch in stream:
            for group in optimizer.param_groups:
                group["lr"] = start.rates[len(losses)]
            optimizer.zero_grad()
            logits = model(tensors(batch.images, sets[0], layout))
            loss = functional.cross_entropy(logits, torch.from_numpy(batch.labels))
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            if batch.step == stream.steps_per_epoch - 1:
                train_loss = statistics.mean(losses[-stream.steps_per_epoch :])
                epochs.append({"train_loss": train_loss, **evaluate(model, sets[1], readers, layout)})
    return {**pd.DataFrame(epochs).to_dict("list"), "first_losses": losses[:FIRST]}
