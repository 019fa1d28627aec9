"""What training changes, and the step that changes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from py4j.java_gateway import JavaObject

from sysds_resnet.errors import UserError
from sysds_resnet.model import BN_EPS, ResNet, check_images, check_labels
from sysds_resnet.schedule import PLAN, Schedule

_VELOCITIES = """
source("dml/trainer.dml") as trainer
velocities = trainer::init_velocities(model)
"""
_GRADIENTS = """
source("dml/data.dml") as data
source("dml/trainer.dml") as trainer
y = data::check_labels(y, num_classes)
pixels = data::normalize(X, mean, std)
[gradients, metrics] = trainer::gradients(pixels, y, model, registry, geometry, label_smoothing, batch_size,
                                          eps)
"""
_ADD = """
source("dml/trainer.dml") as trainer
gradients = trainer::add(gradients, others)
"""
_UPDATE = f"""
source("dml/schedule.dml") as schedule
source("dml/trainer.dml") as trainer
{PLAN}
while(FALSE){{}}  # or the compiler may pass the list's first element in place of the list
lr = schedule::rate(step, steps_per_epoch, plan)
opt = trainer::optimizer(optimizer, momentum, weight_decay, trust_coeff, trust_eps, trust_clip, nesterov,
                         lr_in_momentum)
[model, velocities] = trainer::update(model, gradients, velocities, registry, opt, lr)
"""
_ORDER = """
source("dml/data.dml") as data
samples = data::order(n, seed, epoch)
"""


_NOT_OF_UPDATES = ("schedule", "micro_batch", "label_smoothing")


@dataclass(frozen=True)
class Optimizer:
    """How a step changes the weights: see dml/trainer.dml and dml/optim/.

    Attributes:
        optimizer: Name.
        schedule: Of the learning rate.
        momentum, weight_decay: Of every optimizer; norms and biases do not decay.
        trust_coeff, trust_eps, trust_clip, lr_in_momentum, nesterov: Of LARS.
        label_smoothing: Of the loss.
        micro_batch: Images whose gradients are computed at a time; a batch is a multiple of it.
    """

    optimizer: Literal["lars", "sgd", "nesterov"]
    schedule: Schedule
    momentum: float
    weight_decay: float
    trust_coeff: float
    trust_eps: float
    trust_clip: bool
    lr_in_momentum: bool
    nesterov: bool
    label_smoothing: float
    micro_batch: int


@dataclass(frozen=True)
class StepMetrics:
    """What a step reports: mean loss and shares of hits before the update, and the learning rate."""

    loss: float
    top1: float
    top5: float
    lr: float


@dataclass
class State:
    """The weights, the velocities and the number of steps done.

    Attributes:
        model: Its weights are this state's weights.
        velocities: Handle of a list in registry order.
        step: Steps done.
    """

    model: ResNet
    velocities: JavaObject
    step: int = 0

    @classmethod
    def fresh(cls, model: ResNet) -> State:
        """The state at the start of training: zero velocities."""
        inputs = {"model": model.weights}
        return cls(model, model.engine.run(_VELOCITIES, inputs, {"velocities": "list"})["velocities"])

    def update(self, images: np.ndarray, labels: np.ndarray, optimizer: Optimizer) -> StepMetrics:
        """Does one step on a batch of images (N, H, W, C) with labels from 0.

        Raises:
            UserError: If a label is out of range, the images hold NaN, or the loss is no number; the
                state is as before.
        """
        network = self.model.network
        gradients, metrics = self._gradients(images, labels, optimizer)
        updated = network.engine.run(
            _UPDATE,
            {
                "model": self.model.weights,
                "velocities": self.velocities,
                "gradients": gradients,
                "registry": network.registry,
                "step": self.step,
                **optimizer.schedule.inputs(),
                **{k: v for k, v in vars(optimizer).items() if k not in _NOT_OF_UPDATES},
            },
            {"model": "list", "velocities": "list", "lr": "double"},
        )
        self.model.weights, self.velocities = updated["model"], updated["velocities"]
        self.step += 1
        loss, top1, top5, n = metrics
        return StepMetrics(loss / n, top1 / n, top5 / n, updated["lr"])

    def _gradients(
        self, images: np.ndarray, labels: np.ndarray, optimizer: Optimizer
    ) -> tuple[JavaObject, np.ndarray]:
        """`batch_gradients` of dml/trainer.dml, with the pixels of no more than a micro-batch in the JVM."""
        network, size = self.model.network, optimizer.micro_batch
        to_pixels = check_images(images, network.channels)
        y = check_labels(labels, len(images), network.num_classes)
        if len(images) % size:
            raise UserError(
                f"micro_batch: found {size} for a batch of {len(images)} images, expected a divisor of it; "
                "choose one"
            )
        geometry = network.geometry(size, *images.shape[1:3], backward=True)
        gradients, metrics = None, np.zeros(4)
        for start in range(0, len(images), size):
            done = network.engine.run(
                _GRADIENTS,
                {
                    "X": to_pixels(images[start : start + size]),
                    "y": y[start : start + size],
                    "num_classes": network.num_classes,
                    "mean": self.model.mean,
                    "std": self.model.std,
                    "model": self.model.weights,
                    "registry": network.registry,
                    "geometry": geometry,
                    "label_smoothing": optimizer.label_smoothing,
                    "batch_size": float(len(images)),
                    "eps": BN_EPS,
                },
                {"gradients": "list", "metrics": "matrix"},
            )
            metrics += network.engine.to_numpy(done["metrics"])[0]
            part = done["gradients"]
            if gradients is None:
                gradients = part
            else:
                inputs = {"gradients": gradients, "others": part}
                gradients = network.engine.run(_ADD, inputs, {"gradients": "list"})["gradients"]
        return gradients, metrics

    def order(self, n: int, seed: int, epoch: int) -> np.ndarray:
        """The order of n samples in an epoch, from 0 (dml/data.dml)."""
        results = self.model.engine.run(_ORDER, {"n": n, "seed": seed, "epoch": epoch}, {"samples": "matrix"})
        return self.model.engine.to_numpy(results["samples"])[:, 0].astype(np.int64) - 1
