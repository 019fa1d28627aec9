"""The settings of a weight update, which dml/optim/ computes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sysds_resnet.training.schedule import Schedule

OptimizerName = Literal["lars", "sgd", "nesterov", "adamw", "lamb"]

_NOT_OF_UPDATES = ("schedule", "micro_batch", "label_smoothing", "ema_decay", "ema_every", "class_weights")


@dataclass(frozen=True)
class Optimizer:
    """The settings of how a step changes the weights; dml/optim/ defines what each of them does.

    Attributes:
        optimizer: The name of the optimizer.
        schedule: The schedule of the learning rate.
        momentum: The momentum of the velocities of lars, sgd and nesterov.
        weight_decay, norm_weight_decay, bias_weight_decay: The weight decays of the weights, of the norms and
            of the final bias.
        conv_lr_factor, norm_lr_factor, fc_lr_factor: The factors of the learning rate for convolutions, norms
            and the final layer.
        clip_norm: The bound to which the gradient's norm is clipped; 0 for none.
        frozen: The number of units that are not trained (dml/network/registry.dml).
        trust_coeff, trust_eps, trust_clip, lr_in_momentum, nesterov: The settings of LARS.
        beta1, beta2: The shares of the first and of the second moments that an update by adamw or lamb keeps.
        adam_eps: The number that adamw and lamb add to the root of the second moments.
        label_smoothing: The share of the target probability that is spread evenly over all classes.
        micro_batch: The number of images whose gradients are computed at a time, a divisor of the batch size.
        ema_decay: The decay of the moving average of the weights; 0 for none.
        ema_every: The number of steps between updates of this average.
        class_weights: The factor of each class's images in the loss; empty for 1.
    """

    optimizer: OptimizerName
    schedule: Schedule
    momentum: float
    weight_decay: float
    norm_weight_decay: float
    bias_weight_decay: float
    conv_lr_factor: float
    norm_lr_factor: float
    fc_lr_factor: float
    clip_norm: float
    frozen: int
    trust_coeff: float
    trust_eps: float
    trust_clip: bool
    lr_in_momentum: bool
    nesterov: bool
    beta1: float
    beta2: float
    adam_eps: float
    label_smoothing: float
    micro_batch: int
    ema_decay: float
    ema_every: int
    class_weights: tuple[float, ...] = ()
