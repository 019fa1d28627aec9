"""The settings of reading images."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from sysds_resnet.settings.command_line import Settings


class ReadingSettings(Settings):
    """Settings of commands that read images."""

    workers: int | None = Field(None, ge=1, description="Processes that read images; by default all cores.")
    prefetch: int = Field(2, ge=0, description="Batches that are read ahead.")
    on_error: Literal["raise", "skip"] = Field(
        "raise", description="What to do with an image that cannot be read; skip lists it in bad_images.csv."
    )
    max_bad: float = Field(
        0.01, ge=0, le=1, description="Share of a data set's images above which skipping ends the command."
    )
