"""The settings of preparing a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from sysds_resnet.batches.settings import ReadingSettings
from sysds_resnet.engine.spark.settings import SparkSettings
from sysds_resnet.images.settings import DataSettings
from sysds_resnet.settings.fields import setting


class PrepareSettings(SparkSettings, ReadingSettings, DataSettings):
    """Writes a data set once: shards that training reads much faster, and matrices for DML programs."""

    out: Path = setting(
        group="output",
        value="FOLDER",
        common=True,
        description="Folder to write; the same command again goes on after a stop.",
    )
    splits: Literal["both", "train", "val"] = setting(
        "both", group="output", common=True, description="Splits to write."
    )
    image_size: int | None = setting(
        None,
        group="output",
        common=True,
        ge=8,
        description="Side of the images: the shorter side is resized to it, and the centre cropped. By "
        "default 256, or 32 for digits and synthetic.",
    )
    shard_images: int = setting(1000, group="output", common=True, ge=1, description="Images in a shard.")
    matrices: bool = setting(
        False,
        group="output",
        common=True,
        description="Also write SystemDS matrices for dml/train.dml and any DML program.",
    )
    blocks: int | None = setting(
        None,
        group="output",
        ge=1,
        description="Also write lists of matrices of so many images each, for dml/train.dml on Spark.",
    )
