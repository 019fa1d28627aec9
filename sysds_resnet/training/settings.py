"""The settings of a training run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import model_validator

from sysds_resnet.batches.settings import ReadingSettings
from sysds_resnet.engine.gpu.cuda import choose_gpus, named_gpus
from sysds_resnet.engine.settings import EngineSettings
from sysds_resnet.engine.spark.settings import SparkSettings
from sysds_resnet.errors import UserError
from sysds_resnet.images.settings import AugmentationSettings, DataSettings
from sysds_resnet.settings.fields import names_where, setting
from sysds_resnet.training.hyperparameters import Hyperparameters
from sysds_resnet.training.processes.settings import ProcessSettings
from sysds_resnet.training.run_settings import RunSettings

OF_DEFAULTS = ("digits", "synthetic")
"""The data sets that the defaults of `TrainSettings` are for; training/defaults.py chooses for others."""

FROZEN_PARTS = ("none", "stem", "layer1", "layer2", "layer3", "layer4")


class TrainSettings(
    EngineSettings,
    SparkSettings,
    ReadingSettings,
    Hyperparameters,
    ProcessSettings,
    RunSettings,
    AugmentationSettings,
    DataSettings,
):
    """Trains a ResNet with LARS on SystemDS; without options, ResNet-50 on handwritten digits.

    For a data set of your own, what is not given is chosen by the number and size of its images, and printed.
    """

    devices_on_spark: ClassVar = ("cpu", "gpu")
    examples: ClassVar = {
        "": "ResNet-50 on handwritten digits, which takes minutes",
        "--dataset DATA --val-split 0.1 --init-from resnet50.pth": "fine-tune on a folder of classes",
        "--dataset imagenet --recipe lars-4096 --precision bf16": "a published recipe",
        "--resume runs/digits-resnet50-20261128-120000": "go on with a run that was stopped",
    }

    recipe: str | None = setting(
        None,
        group="training",
        value="NAME",
        common=True,
        resume="free",
        description="The name of a recipe: settings that flags and files win over; list shows the names.",
    )
    model: Literal["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"] = setting(
        "resnet50", group="network", common=True, description="The network to train."
    )
    image_size: int | None = setting(
        None,
        group="data",
        common=True,
        ge=32,
        chosen=True,
        description="The side of training images in pixels; by default chosen for the data set, 32 for "
        "digits and synthetic, or 224 with a recipe or weights to start from.",
    )
    eval_size: int | None = setting(
        None,
        group="data",
        ge=32,
        description="The side of validation images in pixels; by default that of training images.",
    )
    resize_size: int | None = setting(
        None,
        group="data",
        ge=32,
        description="The shorter side of validation images before the crop, in pixels; by default 256 for "
        "images of 224, and in this proportion for others.",
    )
    zero_init_residual: bool = setting(
        False,
        group="network",
        chosen=True,
        description="Whether the last norm scale of each block starts at 0.",
    )
    init_from: Path | None = setting(
        None,
        group="network",
        value="WEIGHTS",
        common=True,
        resume="free",
        description="The weights to start from, in any form that convert reads.",
    )
    freeze: Literal["none", "stem", "layer1", "layer2", "layer3", "layer4"] = setting(
        "none",
        group="training",
        common=True,
        description="The last frozen part; only what comes after it is trained.",
    )
    seed: int = setting(
        42,
        group="training",
        ge=0,
        lt=2**31,
        description="The seed of the initial weights, the order of the images and their augmentation.",
    )
    amp: bool = setting(
        False,
        group="hardware",
        resume="free",
        description="Whether to use bf16: the same as --precision bf16.",
    )
    class_weights: str | None = setting(
        None,
        group="training",
        value="balanced|FILE",
        description="The weights of the classes in the loss: balanced for weights that make up for uneven "
        "numbers of images, or a YAML file with a number for the name of each class.",
    )
    sampling: Literal["all", "balanced"] = setting(
        "all",
        group="training",
        description="The images of an epoch: all once, or balanced for as many of each class, those of small "
        "classes several times, augmented anew each time.",
    )
    on_nan: Literal["stop", "skip"] = setting(
        "stop",
        group="training",
        resume="free",
        description="What to do when a loss or gradient is not finite; skip leaves the update out.",
    )
    num_images: int | None = setting(
        None, group="data", ge=1, description="The number of synthetic training images."
    )
    num_classes: int | None = setting(
        None, group="data", ge=2, description="The number of synthetic classes."
    )
    dry_run: bool = setting(
        False,
        group="command",
        resume="free",
        description="Whether to print the settings and the engine's command line, or the one for "
        "spark-submit, and start nothing.",
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
    def _processes_here(self) -> TrainSettings:
        for name, there in (("engine spark", self.engine == "spark"), ("profile", self.profile is not None)):
            if self.processes > 1 and there:
                raise UserError(
                    f"settings: found processes {self.processes} with {name}, expected one of them; leave "
                    "--processes or the other out"
                )
        asked = 1 if self.micro_batch == "auto" else self.micro_batch
        if self.batch_size < self.processes * asked:
            parts = f" in micro-batches of {asked}" if asked > 1 else ""
            raise UserError(
                f"processes: found {self.processes} for a batch of {self.batch_size} images{parts}, expected "
                "a micro-batch for each; choose fewer processes, a larger --batch-size or a smaller "
                "--micro-batch"
            )
        return self

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
        """Checks that the warm-up and the milestones fit the epochs, except with a recipe.

        A recipe may be tried for fewer epochs than its warm-up or milestones need.
        """
        chosen = self.dataset not in OF_DEFAULTS and "epochs" not in self.model_fields_set
        if (
            self.recipe is None
            and not chosen
            and self.schedule != "onecycle"
            and self.warmup_epochs > self.epochs
        ):
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

    @model_validator(mode="after")
    def _weights_without_mixing(self) -> TrainSettings:
        if self.class_weights is not None and self.mixing():
            raise UserError(
                "class_weights: found them with mixup or cutmix, expected images of one class each; leave "
                "one of the two out, or take --sampling balanced"
            )
        return self

    @property
    def elsewhere(self) -> bool:
        """Whether other processes than the one of the command train, one of which reports and saves."""
        gpus = super().engine_options(named_gpus)["gpus"]
        return self.engine == "spark" or self.processes_on(gpus) > 1

    def processes_on(self, gpus: Sequence[int]) -> int:
        """Gives the number of processes that train on this machine, with a GPU for each or none."""
        return max(self.processes, len(gpus))

    @property
    def depth(self) -> int:
        """The depth of the network: 18, 34, 50, 101 or 152."""
        return int(self.model.removeprefix("resnet"))

    def fixed(self) -> dict[str, Any]:
        """Gives the settings that a resumed run must agree with."""
        kept = names_where(type(self), resume="same")
        return {k: v for k, v in self.model_dump(mode="json").items() if k in kept}

    @property
    def frozen_parts(self) -> tuple[str, ...]:
        """The names of the parts that are not trained."""
        return FROZEN_PARTS[1 : FROZEN_PARTS.index(self.freeze) + 1]

    def engine_options(self) -> dict[str, Any]:
        """Gives the arguments for the engine of a run; for a dry run, its GPUs need not be there."""
        return super().engine_options(named_gpus if self.dry_run else choose_gpus)
