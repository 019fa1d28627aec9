"""The settings of a training run."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from sysds_resnet.data_settings import AugmentationSettings, DataSettings, ReadingSettings
from sysds_resnet.engine.blas import Blas, Precision
from sysds_resnet.schedule import Schedule, ScheduleName
from sysds_resnet.state import Optimizer

# What a resumed run may change: everything else decides what the weights become.
FREE_SETTINGS = {"config", "debug", "out", "resume", "heap", "log_every", "profile"} | set(
    ReadingSettings.model_fields
)


class TrainSettings(ReadingSettings, AugmentationSettings, DataSettings):
    """Trains a ResNet with LARS on SystemDS; without options, ResNet-50 on handwritten digits."""

    recipe: str | None = Field(
        None, description="Settings by name, which flags and files win over; list shows the names."
    )
    model: Literal["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"] = Field(
        "resnet50", description="Network."
    )
    image_size: int | None = Field(
        None, ge=32, description="Side of training images; by default 32 for digits and synthetic, or 224."
    )
    eval_size: int | None = Field(None, ge=32, description="Side of validation images; by default the same.")
    resize_size: int | None = Field(
        None, ge=32, description="Shorter side of validation images before the crop; by default 256 for 224."
    )
    epochs: int = Field(8, ge=1, description="Passes over the training images.")
    batch_size: int = Field(64, ge=1, description="Images in a step.")
    micro_batch: int | None = Field(
        None, ge=1, description="Images whose gradients are computed at a time; by default what fits."
    )
    optimizer: Literal["lars", "sgd", "nesterov"] = Field("lars", description="How weights are updated.")
    schedule: ScheduleName = Field("polynomial", description="Of the learning rate, after a linear warm-up.")
    base_lr: float = Field(10.0, gt=0, description="Rate after the warm-up, onecycle's highest.")
    lr_scaling: Literal["none", "linear", "sqrt"] = Field(
        "none", description="Multiply base_lr by batch_size / base_batch, or by its square root."
    )
    base_batch: int = Field(256, ge=1, description="Batch size that base_lr is for, with lr_scaling.")
    end_lr: float = Field(0.0, ge=0, description="Learning rate at the end of polynomial and cosine.")
    power: float = Field(2.0, gt=0, description="Of polynomial.")
    warmup_epochs: float = Field(0.8, ge=0, description="Linear warm-up from 0, of all but onecycle.")
    milestones: list[Annotated[float, Field(gt=0)]] = Field(
        [30.0, 60.0, 80.0], min_length=1, description="Epochs at which multistep multiplies by gamma."
    )
    gamma: float = Field(0.1, gt=0, le=1, description="Of multistep.")
    pct_start: float = Field(0.3, gt=0, lt=1, description="Share of the steps in which onecycle rises.")
    div_factor: float = Field(25.0, gt=0, description="Of base_lr by onecycle's first learning rate.")
    final_div_factor: float = Field(1e4, gt=0, description="Of onecycle's first learning rate by its last.")
    momentum: float = Field(0.9, ge=0, lt=1, description="Of the velocity.")
    weight_decay: float = Field(1e-4, ge=0, description="L2; norms and biases do not decay.")
    trust_coeff: float = Field(0.001, gt=0, description="LARS's eta.")
    trust_eps: float = Field(0.0, ge=0, description="Added to the trust ratio's denominator.")
    trust_clip: bool = Field(False, description="Bound LARS's rate by the learning rate (LARC).")
    lr_in_momentum: bool = Field(True, description="LARS: learning rate inside the velocity (MLPerf).")
    lars_nesterov: bool = Field(False, description="LARS with Nesterov's momentum.")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="Of the loss.")
    zero_init_residual: bool = Field(False, description="Start the last norm scale of each block at 0.")
    seed: int = Field(42, ge=0, lt=2**31, description="Of weights, order and augmentation.")
    precision: Precision = Field(
        "single", description="Of matrix multiplies: double, single or bf16; all else is double."
    )
    blas: Blas = Field("auto", description="The fastest, or openblas, or none for plain Java.")
    heap: str | None = Field(None, description="JVM heap, such as 12g; by default half of the memory.")
    log_every: int = Field(1, ge=1, description="Steps between lines in metrics.jsonl.")
    profile: int | None = Field(
        None, ge=1, description="Steps to profile, after ten: profile.csv and profile.png in the run folder."
    )
    num_images: int | None = Field(None, ge=1, description="Synthetic training images.")
    num_classes: int | None = Field(None, ge=2, description="Synthetic classes.")
    out: Path | None = Field(None, description="Run folder; by default runs/DATASET-MODEL-TIME.")
    resume: Path | None = Field(None, description="Run folder to continue.")

    @property
    def depth(self) -> int:
        """Layers of the network."""
        return int(self.model.removeprefix("resnet"))

    def fixed(self) -> dict[str, Any]:
        """The settings that a resumed run must agree with."""
        return {k: v for k, v in self.model_dump(mode="json").items() if k not in FREE_SETTINGS}

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

    def make_optimizer(self, steps_per_epoch: int) -> Optimizer:
        """The optimizer and schedule of a run whose settings are resolved."""
        return Optimizer(
            schedule=self.make_schedule(steps_per_epoch),
            nesterov=self.lars_nesterov,
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
    "trust_coeff",
    "trust_eps",
    "trust_clip",
    "lr_in_momentum",
    "label_smoothing",
)
