"""The settings of where a run is kept, how it is watched, and when it ends; none changes its weights."""

from __future__ import annotations

from pathlib import Path

from sysds_resnet.settings.base import Settings
from sysds_resnet.settings.fields import setting


class RunSettings(Settings):
    """The settings of a run's folder, its checkpoints, its reports and its end."""

    out: Path | None = setting(
        None,
        group="run",
        value="FOLDER",
        common=True,
        resume="free",
        description="The run folder to make; by default runs/DATASET-MODEL-TIME.",
    )
    resume: Path | None = setting(
        None,
        group="run",
        common=True,
        value="RUN",
        resume="free",
        description="The folder of the run to continue.",
    )
    log_every: int = setting(
        1,
        group="run",
        resume="free",
        matters=False,
        ge=1,
        description="The number of steps between lines in metrics.jsonl.",
    )
    keep: int = setting(
        2,
        group="run",
        resume="free",
        matters=False,
        ge=1,
        description="The number of newest checkpoints to keep.",
    )
    save_minutes: float = setting(
        10.0,
        group="run",
        resume="free",
        matters=False,
        gt=0,
        description="The minutes between checkpoints; there is one more after each epoch.",
    )
    save_steps: int | None = setting(
        None,
        group="run",
        resume="free",
        matters=False,
        ge=1,
        description="The number of steps between checkpoints, beside those that save_minutes asks for.",
    )
    acc_thresh: float | None = setting(
        None,
        group="run",
        resume="free",
        gt=0,
        le=100,
        description="The validation top-1 in percent at which training ends.",
    )
    patience: int | None = setting(
        None,
        group="run",
        resume="free",
        ge=1,
        description="The number of epochs without a better validation top-1 after which training ends; "
        "best.safetensors in the run folder has the weights of the best epoch.",
    )
    tensorboard: bool = setting(
        False,
        group="run",
        resume="free",
        matters=False,
        description="Whether to write TensorBoard event files into the run folder.",
    )
    mlflow: str | None = setting(
        None,
        group="run",
        value="URI",
        resume="free",
        matters=False,
        description="The MLflow server or folder to keep the run in: settings, metrics, pictures and model.",
    )
    callbacks: list[str] = setting(
        [],
        group="run",
        value="MODULE:CLASS",
        resume="free",
        matters=False,
        description="Classes of your own that are told what the run does; subclasses of "
        "sysds_resnet.Callback.",
    )
    profile: int | None = setting(
        None,
        group="run",
        resume="free",
        ge=1,
        description="The number of steps to profile, after up to ten for warm-up; writes profile.csv and "
        "profile.png into the run folder.",
    )
