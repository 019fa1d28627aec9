"""The state that training changes, and the step that changes it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
from py4j.java_gateway import JavaObject

from sysds_resnet.classes.labels import MixedLabels
from sysds_resnet.engine.program import Program
from sysds_resnet.errors import NotFinite
from sysds_resnet.network.arrays import SentImages
from sysds_resnet.network.model import Model
from sysds_resnet.report.events import StepMetrics
from sysds_resnet.training.gradients import compute_gradients, lay_out_batch
from sysds_resnet.training.optimizer import _NOT_OF_UPDATES, Optimizer, OptimizerName
from sysds_resnet.training.progress import Progress
from sysds_resnet.training.schedule import PLAN

_MOMENTS = """
source("dml/optim/optimizer.dml") as optim
[first, second] = optim::init_moments(model, optimizer)
n_second = length(second)
"""
_UPDATE = f"""
source("dml/optim/optimizer.dml") as optim
source("dml/optim/schedule.dml") as schedule
{PLAN}
while(FALSE){{}}  # or the compiler may pass the list's first element in place of the list
lr = schedule::rate(step, steps_per_epoch, plan)
opt = optim::settings(name=optimizer, momentum=momentum, weight_decay=weight_decay,
                      trust_coeff=trust_coeff, eps=trust_eps, trust_clip=trust_clip, nesterov=nesterov,
                      lr_in_momentum=lr_in_momentum, norm_weight_decay=norm_weight_decay,
                      bias_weight_decay=bias_weight_decay, conv_lr_factor=conv_lr_factor,
                      norm_lr_factor=norm_lr_factor, fc_lr_factor=fc_lr_factor, clip_norm=clip_norm,
                      frozen=frozen, beta1=beta1, beta2=beta2, adam_eps=adam_eps)
[model, first, second, grad_norm] = optim::update(model, gradients, first, second, registry, opt, lr, updates)
"""
_UPDATED = {"model": "list", "first": "list", "lr": "double", "grad_norm": "double"}
_UPDATES = (  # of optimizers with one list of moments, and with two
    Program(f"second = list()\n{_UPDATE}", _UPDATED, "device", held=True),
    Program(_UPDATE, {**_UPDATED, "second": "list"}, "device", held=True),
)
_AVERAGE = Program(
    """
source("dml/optim/optimizer.dml") as optim
average = optim::average(average, model, decay)
""",
    {"average": "list"},
    "device",
    held=True,
)
_ORDER = """
source("dml/training/data.dml") as data
samples = data::order(n, seed, epoch, block)
"""


@dataclass
class State:
    """The state of a training run: all that training changes.

    Attributes:
        model: The model, whose weights are those of this state.
        moments: The handles of what the optimizer keeps between updates, lists in registry order: that of the
            velocities, or those of the first and of the second moments (dml/optim/optimizer.dml).
        average: The handle of the moving average of the weights; None if there is none.
        progress: The progress of the run.
        held: The handles of lists that somebody reads while training goes on, such as the writer of a
            checkpoint: steps replace them, but do not use their memory again.
    """

    model: Model
    moments: tuple[JavaObject, ...]
    average: JavaObject | None = None
    progress: Progress = field(default_factory=Progress)
    held: tuple[JavaObject, ...] = ()

    @classmethod
    def fresh(cls, model: Model, optimizer: OptimizerName = "lars") -> State:
        """Gives the state of a model at the start of training, with moments of 0.

        Args:
            model: The model to train.
            optimizer: The name of the optimizer that will train it; lars, sgd and nesterov keep the same.
        """
        inputs = {"model": model.weights, "optimizer": optimizer}
        outputs = {"first": "list", "second": "list", "n_second": "int"}
        made = model.engine.run(_MOMENTS, inputs, outputs)
        return cls(model, (made["first"], made["second"]) if made["n_second"] else (made["first"],))

    def send(self, images: np.ndarray, optimizer: Optimizer) -> SentImages:
        """Copies the images of a batch (N, H, W, C) into the engine, which may be computing meanwhile."""
        laid_out = lay_out_batch(self.model, images, optimizer)
        handles = [self.model.engine.send(part) for part in laid_out.parts]
        return replace(laid_out, parts=handles)

    def update(
        self, images: np.ndarray | SentImages, labels: np.ndarray | MixedLabels, optimizer: Optimizer
    ) -> StepMetrics:
        """Does one step on images (N, H, W, C), or on what `send` made of them, with labels from 0.

        If it raises an error, the state is as before.

        Raises:
            UserError: If a label is out of range or the images hold NaN.
            NotFinite: If the loss or the gradient is not finite.
        """
        return self.apply(*compute_gradients(self.model, images, labels, optimizer), optimizer)

    def apply(self, gradients: JavaObject, metrics: np.ndarray, optimizer: Optimizer) -> StepMetrics:
        """Does the rest of a step whose gradients are computed.

        Args:
            gradients: The handle of the gradients of the whole batch, a list in registry order.
            metrics: The numbers [summed loss, top-1 hits, top-5 hits, images], of shape (4,).
            optimizer: The optimizer of the step.

        Raises:
            NotFinite: If the loss or the gradient is not finite; the state is as before.
        """
        network = self.model.network
        loss, top1, top5, n = metrics
        names = ("first", "second")[: len(self.moments)]
        updated = network.engine.run(
            _UPDATES[len(self.moments) - 1],
            {
                "model": self.model.weights,
                **dict(zip(names, self.moments, strict=True)),
                "gradients": gradients,
                "registry": network.registry,
                "step": self.progress.step,
                "updates": self.progress.updates,
                **optimizer.schedule.inputs(),
                **{k: v for k, v in vars(optimizer).items() if k not in _NOT_OF_UPDATES},
            },
        )
        moments = tuple(updated[name] for name in names)
        done = StepMetrics(loss / n, top1 / n, top5 / n, updated["lr"], updated["grad_norm"])
        if not (math.isfinite(done.loss) and math.isfinite(done.grad_norm)):
            # the updated lists are dropped, and with them everything that this step would have changed
            self._free(updated["model"], *moments, gradients)
            raise NotFinite(
                f"step {self.progress.step + 1}: found loss {done.loss:g} and gradient norm "
                f"{done.grad_norm:g}, expected finite numbers; look at the images, or lower base_lr",
                done,
            )
        before = self.model.weights, *self.moments
        self.model.weights, self.moments = updated["model"], moments
        self._free(*before, gradients)
        # not the weights, which another thread may be scoring images with
        engine = network.engine
        engine.recycle([*before[1:], gradients], keep=[self.model.weights, *moments, *self.held])
        self.progress.step += 1
        if optimizer.ema_decay:
            self._move_average(optimizer)
        return done

    @property
    def averaged(self) -> JavaObject:
        """The handle of the weights to validate and to keep: the moving average if there is one."""
        return self.model.weights if self.average is None else self.average

    def _move_average(self, optimizer: Optimizer) -> None:
        """Updates the moving average by the rule that `train` in dml/training/loop.dml has, too.

        It is the weights themselves until the warm-up ends, and in the first step.
        """
        schedule, step, before = optimizer.schedule, self.progress.step, self.average
        if step <= max(schedule.warmup_steps, 1):
            self.average = self.model.weights
        elif step % optimizer.ema_every == 0:
            inputs = {"average": self.average, "model": self.model.weights, "decay": optimizer.ema_decay}
            self.average = self.model.engine.run(_AVERAGE, inputs)["average"]
        if before is not None and before is not self.average:
            self._free(before)

    def _free(self, *lists: JavaObject) -> None:
        """Frees what is in lists but not in this state."""
        kept = [self.model.weights, *self.moments, *([] if self.average is None else [self.average])]
        self.model.engine.free(lists, keep=kept)

    def order(self, n: int, seed: int, epoch: int, block: int = 1) -> np.ndarray:
        """Gives the positions of n samples, from 0, in their order in an epoch (dml/training/data.dml)."""
        inputs = {"n": n, "seed": seed, "epoch": epoch, "block": block}
        results = self.model.engine.run(_ORDER, inputs, {"samples": "matrix"})
        return self.model.engine.to_numpy(results["samples"])[:, 0].astype(np.int64) - 1
