"""What a training step does to the weights: settings by the names that dml/optim/ has for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sysds_resnet.training.schedule import Schedule

_NOT_OF_UPDATES = ("schedule", "micro_batch", "label_smoothing", "ema_decay", "ema_every")


@dataclass(frozen=True)
class Optimizer:
    """How a step changes the weights: see dml/optim/.

    Attributes:
        optimizer: Name.
        schedule: Of the learning rate.
        momentum: Of every optimizer.
        weight_decay, norm_weight_decay, bias_weight_decay: Of weights, of norms, of the final bias.
        conv_lr_factor, norm_lr_factor, fc_lr_factor: Of the learning rate.
        clip_norm: Bound of the gradient's norm; 0 for none.
        frozen: Units that are not trained (dml/network/registry.dml).
        trust_coeff, trust_eps, trust_clip, lr_in_momentum, nesterov: Of LARS.
        label_smoothing: Of the loss.
        micro_batch: Images whose gradients are computed at a time; a batch is a multiple of it.
        ema_decay, ema_every: Of the moving average of the weights; 0 for none, and steps between its moves.
    """

    optimizer: Literal["lars", "sgd", "nesterov"]
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
    label_smoothing: float
    micro_batch: int
    ema_decay: float
    ema_every: int
