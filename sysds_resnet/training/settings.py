"""The settings of a training run."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

from pydantic import model_validator

from sysds_resnet.batches.settings import ReadingSettings
from sysds_resnet.engine.gpu.cuda import choose_gpus, named_gpus
from sysds_resnet.engine.settings import EngineSettings
from sysds_resnet.engine.spark.settings import SparkSettings
from sysds_resnet.errors import UserError
from sysds_resnet.images.settings import AugmentationSettings, DataSettings
from sysds_resnet.settings.fields import names_where, setting
from sysds_resnet.training.hyperparameters import Hyperparameters

FROZEN_PARTS = ("none", "stem", "layer1", "layer2", "layer3", "layer4")


class TrainSettings(
    EngineSettings, SparkSettings, ReadingSettings, Hyperparameters, AugmentationSettings, DataSettings
):
    """Trains a ResNet with LARS on SystemDS; without options, ResNet-50 on handwritten digits."""

    recipe: str | None = setting(
        None,
        group="recipe",
        resume="free",
        description="Settings by name, which flags and files win over; list shows the names.",
    )
    model: Literal["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"] = setting(
        "resnet50", group="network", description="Network."
    )
    image_size: int | None = setting(
        None,
        group="images",
        ge=32,
        description="Side of training images; by default 32 for digits and synthetic, or 224.",
    )
    eval_size: int | None = setting(
        None, group="images", ge=32, description="Side of validation images; by default the same."
    )
    resize_size: int | None = setting(
        None,
        group="images",
        ge=32,
        description="Shorter side of validation images before the crop; by default 256 for 224.",
    )
    zero_init_residual: bool = setting(
        False, group="network", description="Start the last norm scale of each block at 0."
    )
    init_from: Path | None = setting(
        None,
        group="network",
        resume="free",
        description="Weights to start from, in any form that convert reads.",
    )
    freeze: Literal["none", "stem", "layer1", "layer2", "layer3", "layer4"] = setting(
        "none", group="training", description="Train only what comes after this part."
    )
    seed: int = setting(
        42, group="training", ge=0, lt=2**31, description="Of weights, order and augmentation."
    )
    amp: bool = setting(False, group="engine", resume="free", description="The same as --precision bf16.")
    log_every: int = setting(
        1,
        group="run folder",
        resume="free",
        matters=False,
        ge=1,
        description="Steps between lines in metrics.jsonl.",
    )
    keep: int = setting(
        2, group="run folder", resume="free", matters=False, ge=1, description="Checkpoints to keep."
    )
    save_minutes: float = setting(
        10.0,
        group="run folder",
        resume="free",
        matters=False,
        gt=0,
        description="Between checkpoints; one more after each epoch.",
    )
    save_steps: int | None = setting(
        None,
        group="run folder",
        resume="free",
        matters=False,
        ge=1,
        description="Steps between checkpoints, beside these.",
    )
    on_nan: Literal["stop", "skip"] = setting(
        "stop",
        group="training",
        resume="free",
        description="What to do when a loss or gradient is not finite; skip leaves the update out.",
    )
    acc_thresh: float | None = setting(
        None,
        group="run folder",
        resume="free",
        gt=0,
        le=100,
        description="Validation top-1 in percent at which training ends.",
    )
    tensorboard: bool = setting(
        False,
        group="run folder",
        resume="free",
        matters=False,
        description="Write TensorBoard event files into the run folder.",
    )
    profile: int | None = setting(
        None,
        group="run folder",
        resume="free",
        ge=1,
        description="Steps to profile, after ten: profile.csv and profile.png in the run folder.",
    )
    num_images: int | None = setting(None, group="images", ge=1, description="Synthetic training images.")
    num_classes: int | None = setting(None, group="images", ge=2, description="Synthetic classes.")
    dry_run: bool = setting(
        False,
        group="command",
        resume="free",
        description="Print the settings and the engine's command line, or that for spark-submit, and start "
        "nothing.",
    )
    out: Path | None = setting(
        None, group="run folder", resume="free", description="Run folder; by default runs/DATASET-MODEL-TIME."
    )
    resume: Path | None = setting(
        None, group="run folder", resume="free", description="Run folder to continue."
    )

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
        kept = names_where(type(self), resume="same")
        return {k: v for k, v in self.model_dump(mode="json").items() if k in kept}

    @property
    def frozen_parts(self) -> tuple[str, ...]:
        """Names of the parts that are not trained."""
        return FROZEN_PARTS[1 : FROZEN_PARTS.index(self.freeze) + 1]

    def engine_options(self) -> dict[str, Any]:
        """As of `EngineSettings`; of a dry run, the GPUs need not be there."""
        return super().engine_options(named_gpus if self.dry_run else choose_gpus)
