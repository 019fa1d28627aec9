"""The settings of reading images."""

from __future__ import annotations

from typing import Literal

from sysds_resnet.settings.base import Settings
from sysds_resnet.settings.fields import setting


class ReadingSettings(Settings):
    """The settings of commands that read images."""

    workers: int | None = setting(
        None,
        group="reading images",
        resume="free",
        matters=False,
        ge=1,
        description="Processes that read images; by default one for each core, at most 16.",
    )
    prefetch: int = setting(
        2,
        group="reading images",
        resume="free",
        matters=False,
        ge=0,
        description="Batches that are read ahead.",
    )
    on_error: Literal["raise", "skip"] = setting(
        "raise",
        group="broken images",
        resume="free",
        matters=False,
        description="What to do with an image that cannot be read; skip lists it in bad_images.csv.",
    )
    max_bad: float = setting(
        0.01,
        group="broken images",
        resume="free",
        matters=False,
        ge=0,
        le=1,
        description="Share of a data set's images above which skipping ends the command.",
    )
