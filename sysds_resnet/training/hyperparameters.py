"""The settings that decide how weights are trained, but for the data and the network."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field

from sysds_resnet.settings.command_line import Settings
from sysds_resnet.settings.fields import setting
from sysds_resnet.training.optimizer import Optimizer
from sysds_resnet.training.schedule import Schedule, ScheduleName


class Hyperparameters(Settings):
    """How weights are trained."""

    epochs: int = setting(8, group="training", ge=1, description="Passes over the training images.")
    batch_size: int = setting(64, group="training", ge=1, description="Images in a step.")
    micro_batch: Literal["auto"] | Annotated[int, Field(ge=1)] = setting(
        "auto",
        group="training",
        resume="free",
        description="Images whose gradients are computed at a time; auto for what fits the heap. Halved when "
        "memory runs out.",
    )
    repeats: int = setting(
        1, group="training", ge=1, description="Times each image of an epoch comes, augmented anew each time."
    )
    shuffle_block: int = setting(
        1,
        group="training",
        ge=1,
        description="Images that stay together when they are shuffled, where reading them one by one takes "
        "long.",
    )
    optimizer: Literal["lars", "sgd", "nesterov"] = setting(
        "lars", group="optimizer", description="How weights are updated."
    )
    schedule: ScheduleName = setting(
        "polynomial", group="learning rate", description="Of the learning rate, after a linear warm-up."
    )
    base_lr: float = setting(
        10.0, group="learning rate", gt=0, description="Rate after the warm-up, onecycle's highest."
    )
    lr_scaling: Literal["none", "linear", "sqrt"] = setting(
        "none",
        group="learning rate",
        description="Multiply base_lr by batch_size / base_batch, or by its square root.",
    )
    base_batch: int = setting(
        256, group="learning rate", ge=1, description="Batch size that base_lr is for, with lr_scaling."
    )
    end_lr: float = setting(
        0.0, group="learning rate", ge=0, description="Learning rate at the end of polynomial and cosine."
    )
    power: float = setting(2.0, group="learning rate", gt=0, description="Of polynomial.")
    warmup_epochs: float = setting(
        0.8, group="learning rate", ge=0, description="Linear warm-up from 0, of all but onecycle."
    )
    milestones: list[Annotated[float, Field(gt=0)]] = setting(
        [30.0, 60.0, 80.0],
        group="learning rate",
        min_length=1,
        description="Epochs at which multistep multiplies by gamma.",
    )
    gamma: float = setting(0.1, group="learning rate", gt=0, le=1, description="Of multistep.")
    pct_start: float = setting(
        0.3, group="learning rate", gt=0, lt=1, description="Share of the steps in which onecycle rises."
    )
    div_factor: float = setting(
        25.0, group="learning rate", gt=0, description="Of base_lr by onecycle's first learning rate."
    )
    final_div_factor: float = setting(
        1e4, group="learning rate", gt=0, description="Of onecycle's first learning rate by its last."
    )
    momentum: float = setting(0.9, group="optimizer", ge=0, lt=1, description="Of the velocity.")
    weight_decay: float = setting(
        1e-4, group="optimizer", ge=0, description="L2, of convolutions and the final weights."
    )
    norm_weight_decay: float = setting(
        0.0, group="optimizer", ge=0, description="L2, of the norms' scales and shifts."
    )
    bias_weight_decay: float = setting(0.0, group="optimizer", ge=0, description="L2, of the final bias.")
    conv_lr_factor: float = setting(
        1.0, group="optimizer", ge=0, description="Of the learning rate, for convolutions."
    )
    norm_lr_factor: float = setting(
        1.0, group="optimizer", ge=0, description="Of the learning rate, for norms."
    )
    fc_lr_factor: float = setting(
        1.0, group="optimizer", ge=0, description="Of the learning rate, for the final layer."
    )
    clip_norm: float = setting(
        0.0, group="optimizer", ge=0, description="Bound of the gradient's norm; 0 for none."
    )
    trust_coeff: float = setting(0.001, group="optimizer", gt=0, description="LARS's eta.")
    trust_eps: float = setting(
        0.0, group="optimizer", ge=0, description="Added to the trust ratio's denominator."
    )
    trust_clip: bool = setting(
        False, group="optimizer", description="Bound LARS's rate by the learning rate (LARC)."
    )
    lr_in_momentum: bool = setting(
        True, group="optimizer", description="LARS: learning rate inside the velocity (MLPerf)."
    )
    lars_nesterov: bool = setting(False, group="optimizer", description="LARS with Nesterov's momentum.")
    label_smoothing: float = setting(0.0, group="optimizer", ge=0, lt=1, description="Of the loss.")
    ema_decay: float = setting(
        0.0,
        group="optimizer",
        ge=0,
        lt=1,
        description="Of a moving average of the weights, which is kept; 0 for none.",
    )
    ema_every: int = setting(1, group="optimizer", ge=1, description="Steps between moves of the average.")

    def make_schedule(self, steps_per_epoch: int) -> Schedule:
        """The schedule of a run, with the learning rate that belongs to its batch size."""
        ratio = self.batch_size / self.base_batch
        factor = {"none": 1.0, "linear": ratio, "sqrt": math.sqrt(ratio)}[self.lr_scaling]
        return Schedule(
            name=self.schedule,
            steps_per_epoch=steps_per_epoch,
            base_lr=factor * self.base_lr,
            milestones=tuple(self.milestones),
            **{name: getattr(self, name) for name in _SCHEDULE_SETTINGS},
        )

    def make_optimizer(self, steps_per_epoch: int, frozen: int = 0) -> Optimizer:
        """The optimizer and schedule of a run whose settings are resolved, with so many units frozen."""
        return Optimizer(
            schedule=self.make_schedule(steps_per_epoch),
            nesterov=self.lars_nesterov,
            frozen=frozen,
            micro_batch=self.micro_batch,
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
# What decides how weights are trained, by the names that dml/train.dml has for it too.
HYPERPARAMETERS = ("schedule", "base_lr", "batch_size", "seed", *_SCHEDULE_SETTINGS, *_OPTIMIZER_SETTINGS)
