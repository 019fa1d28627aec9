"""The settings of a training run."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from sysds_resnet.batches.settings import ReadingSettings
from sysds_resnet.engine.gpu.cuda import DEVICE, GPUS, choose_gpus, chosen_device, named_gpus
from sysds_resnet.engine.jvm.multiply import Blas, Precision
from sysds_resnet.engine.spark.settings import SparkSettings
from sysds_resnet.errors import UserError
from sysds_resnet.images.settings import AugmentationSettings, DataSettings
from sysds_resnet.training.optimizer import Optimizer
from sysds_resnet.training.schedule import Schedule, ScheduleName

# Where the data lie, which a resumed run may say anew; digests tell whether they are the same.
PLACE_SETTINGS = ("dataset", "layout")
# What a resumed run may change: everything else decides what the weights become.
FREE_SETTINGS = {*ReadingSettings.model_fields, *SparkSettings.model_fields, *PLACE_SETTINGS} | {
    *(
        "acc_thresh",
        "amp",
        "config",
        "debug",
        "device",
        "dry_run",
        "gpus",
        "heap",
        "init_from",
        "keep",
        "log_every",
        "micro_batch",
    ),
    *("on_nan", "out", "profile", "recipe", "resume", "save_minutes", "save_steps", "tensorboard"),
}
FROZEN_PARTS = ("none", "stem", "layer1", "layer2", "layer3", "layer4")


class TrainSettings(SparkSettings, ReadingSettings, AugmentationSettings, DataSettings):
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
    micro_batch: Literal["auto"] | Annotated[int, Field(ge=1)] = Field(
        "auto",
        description="Images whose gradients are computed at a time; auto for what fits the heap. Halved when "
        "memory runs out.",
    )
    repeats: int = Field(1, ge=1, description="Times each image of an epoch comes, augmented anew each time.")
    shuffle_block: int = Field(
        1,
        ge=1,
        description="Images that stay together when they are shuffled, where reading them one by one takes "
        "long.",
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
    weight_decay: float = Field(1e-4, ge=0, description="L2, of convolutions and the final weights.")
    norm_weight_decay: float = Field(0.0, ge=0, description="L2, of the norms' scales and shifts.")
    bias_weight_decay: float = Field(0.0, ge=0, description="L2, of the final bias.")
    conv_lr_factor: float = Field(1.0, ge=0, description="Of the learning rate, for convolutions.")
    norm_lr_factor: float = Field(1.0, ge=0, description="Of the learning rate, for norms.")
    fc_lr_factor: float = Field(1.0, ge=0, description="Of the learning rate, for the final layer.")
    clip_norm: float = Field(0.0, ge=0, description="Bound of the gradient's norm; 0 for none.")
    trust_coeff: float = Field(0.001, gt=0, description="LARS's eta.")
    trust_eps: float = Field(0.0, ge=0, description="Added to the trust ratio's denominator.")
    trust_clip: bool = Field(False, description="Bound LARS's rate by the learning rate (LARC).")
    lr_in_momentum: bool = Field(True, description="LARS: learning rate inside the velocity (MLPerf).")
    lars_nesterov: bool = Field(False, description="LARS with Nesterov's momentum.")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="Of the loss.")
    ema_decay: float = Field(
        0.0, ge=0, lt=1, description="Of a moving average of the weights, which is kept; 0 for none."
    )
    ema_every: int = Field(1, ge=1, description="Steps between moves of the average.")
    zero_init_residual: bool = Field(False, description="Start the last norm scale of each block at 0.")
    init_from: Path | None = Field(None, description="Weights to start from, in any form that convert reads.")
    freeze: Literal["none", "stem", "layer1", "layer2", "layer3", "layer4"] = Field(
        "none", description="Train only what comes after this part."
    )
    seed: int = Field(42, ge=0, lt=2**31, description="Of weights, order and augmentation.")
    precision: Precision = Field(
        "single", description="Of matrix multiplies: double, single or bf16; all else is double."
    )
    amp: bool = Field(False, description="The same as --precision bf16.")
    device: str = Field("cpu", description=DEVICE)
    gpus: int | None = Field(None, ge=1, description=GPUS)
    blas: Blas = Field("auto", description="The fastest, or openblas, or none for plain Java.")
    heap: str | None = Field(None, description="JVM heap, such as 12g; by default half of the memory.")
    log_every: int = Field(1, ge=1, description="Steps between lines in metrics.jsonl.")
    keep: int = Field(2, ge=1, description="Checkpoints to keep.")
    save_minutes: float = Field(10.0, gt=0, description="Between checkpoints; one more after each epoch.")
    save_steps: int | None = Field(None, ge=1, description="Steps between checkpoints, beside these.")
    on_nan: Literal["stop", "skip"] = Field(
        "stop", description="What to do when a loss or gradient is not finite; skip leaves the update out."
    )
    acc_thresh: float | None = Field(
        None, gt=0, le=100, description="Validation top-1 in percent at which training ends."
    )
    tensorboard: bool = Field(False, description="Write TensorBoard event files into the run folder.")
    profile: int | None = Field(
        None, ge=1, description="Steps to profile, after ten: profile.csv and profile.png in the run folder."
    )
    num_images: int | None = Field(None, ge=1, description="Synthetic training images.")
    num_classes: int | None = Field(None, ge=2, description="Synthetic classes.")
    dry_run: bool = Field(
        False,
        description="Print the settings and the engine's command line, or that for spark-submit, and start "
        "nothing.",
    )
    out: Path | None = Field(None, description="Run folder; by default runs/DATASET-MODEL-TIME.")
    resume: Path | None = Field(None, description="Run folder to continue.")

    @model_validator(mode="after")
    def _profile_on_cpu(self) -> TrainSettings:
        if self.profile is not None and (self.device != "cpu" or self.gpus):
            raise ValueError("device cpu with profile; benchmarks/gpu.py tells where a GPU's time goes")
        return self

    @model_validator(mode="before")
    @classmethod
    def _amp(cls, values: dict[str, Any]) -> dict[str, Any]:
        if values.get("amp") in (True, "true", "True"):
            precision = values.setdefault("precision", "bf16")
            if precision != "bf16":
                raise ValueError(f"only one of amp and precision {precision}")
        return values

    @model_validator(mode="after")
    def _no_profile_of_clusters(self) -> TrainSettings:
        if self.engine == "spark" and self.profile is not None:
            raise UserError(
                "settings: found profile with engine spark, expected one of them; leave --profile out, or "
                "train without --engine spark"
            )
        return self

    @model_validator(mode="after")
    def _schedule_within_the_run(self) -> TrainSettings:
        """A recipe may be tried for less epochs than it has a warm-up or milestones for."""
        if self.recipe is None and self.schedule != "onecycle" and self.warmup_epochs > self.epochs:
            raise UserError(
                f"warmup_epochs: found {self.warmup_epochs:g} with {self.epochs} epochs, expected at most "
                "as many; shorten the warm-up or train for longer"
            )
        end = math.inf if self.recipe else float(self.epochs)
        steps = zip([0.0, *self.milestones], [*self.milestones, end], strict=True)
        if self.schedule == "multistep" and any(later <= earlier for earlier, later in steps):
            raise UserError(
                f"milestones: found {self.milestones}, expected epochs that increase, above 0 and below "
                f"{self.epochs}; change --milestones or --epochs"
            )
        return self

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

    @property
    def frozen_parts(self) -> tuple[str, ...]:
        """Names of the parts that are not trained."""
        return FROZEN_PARTS[1 : FROZEN_PARTS.index(self.freeze) + 1]

    def chosen_gpus(self) -> tuple[int, ...]:
        """Numbers of the GPUs to train on; see `choose_gpus`."""
        choose = named_gpus if self.dry_run else choose_gpus
        return choose(*chosen_device(self.device, self.gpus))

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
