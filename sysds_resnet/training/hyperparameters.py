"""The settings that decide how weights are trained, apart from the data and the network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from sysds_resnet.settings.base import Settings
from sysds_resnet.settings.fields import setting
from sysds_resnet.training.optimizer import Optimizer, OptimizerName
from sysds_resnet.training.schedule import Schedule, ScheduleName


class Hyperparameters(Settings):
    """The settings of how weights are trained: epochs, batches, learning rate and optimizer."""

    epochs: int = setting(
        8,
        group="training",
        chosen=True,
        common=True,
        resume="free",
        ge=1,
        description="The number of passes over the training images; may be changed with --resume.",
    )
    batch_size: int = setting(
        64,
        group="training",
        chosen=True,
        common=True,
        ge=1,
        description="The number of images in a training step.",
    )
    micro_batch: Literal["auto"] | Annotated[int, Field(ge=1)] = setting(
        "auto",
        group="training",
        resume="free",
        description="The number of images whose gradients are computed at a time; auto for as many as fit "
        "the memory. It is halved when memory runs out.",
    )
    repeats: int = setting(
        1,
        group="training",
        ge=1,
        description="The number of times that each image of an epoch is used, augmented anew each time.",
    )
    shuffle_block: int = setting(
        1,
        group="training",
        ge=1,
        description="The number of images that stay together when images are shuffled, for data that take "
        "long to read one by one.",
    )
    optimizer: OptimizerName = setting(
        "lars",
        group="optimizer",
        chosen=True,
        common=True,
        description="The optimizer that updates the weights.",
    )
    schedule: ScheduleName = setting(
        "polynomial",
        group="schedule",
        chosen=True,
        common=True,
        description="The schedule of the learning rate; all but onecycle begin with a linear warm-up.",
    )
    base_lr: float = setting(
        10.0,
        group="schedule",
        chosen=True,
        common=True,
        gt=0,
        description="The learning rate after the warm-up; for onecycle, the highest one.",
    )
    lr_scaling: Literal["none", "linear", "sqrt"] = setting(
        "none",
        group="schedule",
        description="The factor of base_lr: linear for batch_size / base_batch, sqrt for its square root.",
    )
    base_batch: int = setting(
        256,
        group="schedule",
        ge=1,
        description="The batch size that base_lr is meant for, with lr_scaling.",
    )
    end_lr: float = setting(
        0.0,
        group="schedule",
        ge=0,
        description="The learning rate at the end of polynomial and cosine.",
    )
    power: float = setting(
        2.0, group="schedule", gt=0, description="The exponent of the polynomial schedule."
    )
    warmup_epochs: float = setting(
        0.8,
        group="schedule",
        chosen=True,
        common=True,
        ge=0,
        description="The epochs of the linear warm-up from 0; onecycle has none.",
    )
    milestones: list[Annotated[float, Field(gt=0)]] = setting(
        [30.0, 60.0, 80.0],
        group="schedule",
        min_length=1,
        description="The epochs at which multistep multiplies the learning rate by gamma.",
    )
    gamma: float = setting(
        0.1, group="schedule", gt=0, le=1, description="The factor of multistep at each milestone."
    )
    pct_start: float = setting(
        0.3,
        group="schedule",
        gt=0,
        lt=1,
        description="The share of the steps in which the learning rate of onecycle rises.",
    )
    div_factor: float = setting(
        25.0,
        group="schedule",
        gt=0,
        description="The ratio of base_lr to onecycle's first learning rate.",
    )
    final_div_factor: float = setting(
        1e4,
        group="schedule",
        gt=0,
        description="The ratio of onecycle's first learning rate to its last one.",
    )
    momentum: float = setting(
        0.9,
        group="optimizer",
        ge=0,
        lt=1,
        description="The share of the velocity that each step of lars, sgd and nesterov keeps.",
    )
    beta1: float = setting(
        0.9,
        group="optimizer",
        ge=0,
        lt=1,
        description="The share of the first moment, an average of gradients, that each step of adamw and "
        "lamb keeps.",
    )
    beta2: float = setting(
        0.999,
        group="optimizer",
        ge=0,
        lt=1,
        description="The share of the second moment, an average of squared gradients, that each step of "
        "adamw and lamb keeps.",
    )
    adam_eps: float = setting(
        1e-8,
        group="optimizer",
        gt=0,
        description="The number that adamw and lamb add to the root of the second moment.",
    )
    weight_decay: float = setting(
        1e-4,
        group="optimizer",
        chosen=True,
        common=True,
        ge=0,
        description="The weight decay of convolutions and of the final layer's weights: decoupled with adamw "
        "and lamb, otherwise L2.",
    )
    norm_weight_decay: float = setting(
        0.0, group="optimizer", ge=0, description="The weight decay of the norms' scales and shifts."
    )
    bias_weight_decay: float = setting(
        0.0, group="optimizer", ge=0, description="The weight decay of the final layer's bias."
    )
    conv_lr_factor: float = setting(
        1.0, group="optimizer", ge=0, description="The factor of the learning rate for convolutions."
    )
    norm_lr_factor: float = setting(
        1.0, group="optimizer", ge=0, description="The factor of the learning rate for norms."
    )
    fc_lr_factor: float = setting(
        1.0, group="optimizer", ge=0, description="The factor of the learning rate for the final layer."
    )
    clip_norm: float = setting(
        0.0,
        group="optimizer",
        ge=0,
        description="The bound to which the gradient's norm is clipped; 0 for none.",
    )
    trust_coeff: float = setting(
        0.001, group="optimizer", gt=0, description="The trust coefficient of LARS, eta in its paper."
    )
    trust_eps: float = setting(
        0.0,
        group="optimizer",
        ge=0,
        description="The number that is added to the denominator of LARS's trust ratio.",
    )
    trust_clip: bool = setting(
        False,
        group="optimizer",
        description="Whether the schedule's learning rate bounds LARS's rate of each tensor (LARC).",
    )
    lr_in_momentum: bool = setting(
        True,
        group="optimizer",
        description="Whether LARS applies the learning rate inside the velocity (MLPerf), not after it.",
    )
    lars_nesterov: bool = setting(
        False, group="optimizer", description="Whether LARS uses Nesterov's momentum."
    )
    label_smoothing: float = setting(
        0.0,
        group="optimizer",
        chosen=True,
        ge=0,
        lt=1,
        description="The share of the target probability that is spread evenly over all classes.",
    )
    ema_decay: float = setting(
        0.0,
        group="optimizer",
        ge=0,
        lt=1,
        description="The decay of a moving average of the weights, which is validated and kept in place of "
        "the weights; 0 for none.",
    )
    ema_every: int = setting(
        1, group="optimizer", ge=1, description="The number of steps between updates of the moving average."
    )

    def make_schedule(self, steps_per_epoch: int) -> Schedule:
        """Gives the schedule of a run, with the learning rate that belongs to its batch size."""
        ratio = self.batch_size / self.base_batch
        factor = {"none": 1.0, "linear": ratio, "sqrt": math.sqrt(ratio)}[self.lr_scaling]
        return Schedule(
            name=self.schedule,
            steps_per_epoch=steps_per_epoch,
            base_lr=factor * self.base_lr,
            milestones=tuple(self.milestones),
            **{name: getattr(self, name) for name in _SCHEDULE_SETTINGS},
        )

    def make_optimizer(
        self, steps_per_epoch: int, frozen: int = 0, class_weights: Sequence[float] = ()
    ) -> Optimizer:
        """Gives the optimizer and schedule of a run whose settings are resolved.

        Args:
            steps_per_epoch: The number of steps in an epoch.
            frozen: The number of units that are not trained.
            class_weights: The factor of each class's images in the loss; empty for 1.
        """
        return Optimizer(
            schedule=self.make_schedule(steps_per_epoch),
            nesterov=self.lars_nesterov,
            frozen=frozen,
            micro_batch=self.micro_batch,
            class_weights=tuple(class_weights),
            **{name: getattr(self, name) for name in _OPTIMIZER_SETTINGS},
        )


_SCHEDULE_SETTINGS = (
    "epochs",
    "warmup_epochs",
    "end_lr",
    "power",
    "gamma",
    "pct_start",
    "div_factor",
    "final_div_factor",
)
_OPTIMIZER_SETTINGS = (
    "optimizer",
    "momentum",
    "beta1",
    "beta2",
    "adam_eps",
    "weight_decay",
    "norm_weight_decay",
    "bias_weight_decay",
    "conv_lr_factor",
    "norm_lr_factor",
    "fc_lr_factor",
    "clip_norm",
    "trust_coeff",
    "trust_eps",
    "trust_clip",
    "lr_in_momentum",
    "label_smoothing",
    "ema_decay",
    "ema_every",
)
# The settings that decide how weights are trained and that dml/train.dml has under the same names.
HYPERPARAMETERS = ("schedule", "base_lr", "batch_size", "seed", *_SCHEDULE_SETTINGS, *_OPTIMIZER_SETTINGS)
