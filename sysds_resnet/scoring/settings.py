"""The settings of evaluation and prediction."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from sysds_resnet.batches.settings import ReadingSettings
from sysds_resnet.engine.settings import EngineSettings
from sysds_resnet.engine.spark.settings import SparkSettings
from sysds_resnet.images.settings import DataSettings
from sysds_resnet.images.views import Tta, View, choose_views
from sysds_resnet.scoring.predictions import Format
from sysds_resnet.settings.fields import setting

Scale = Annotated[float, Field(ge=0.25, le=4)]


class ScoringSettings(EngineSettings, ReadingSettings):
    """Settings of commands that run trained networks."""

    weights: list[str] = setting(
        group="networks",
        min_length=1,
        description="One or more of: .safetensors, .pth, a run folder, a Hugging Face folder, ... Of "
        "several, the probabilities are averaged.",
    )
    image_size: int | None = setting(
        None,
        group="views of images",
        ge=32,
        description="Side of the images in pixels; by default what the weights say, or 224.",
    )
    resize_size: int | None = setting(
        None,
        group="views of images",
        ge=32,
        description="Shorter side before the crop; by default as the weights say, or 256.",
    )
    tta: Tta = setting(
        "none",
        group="views of images",
        description="Views of each image whose probabilities are averaged: the centre; it and its mirror "
        "image; corners and centre; these and their mirror images.",
    )
    scales: list[Scale] = setting(
        [1.0],
        group="views of images",
        min_length=1,
        description="Factors of resize_size; all views are taken at each of them.",
    )

    def views(self) -> list[View]:
        """The views of each image that these settings ask for."""
        return choose_views(self.tta, self.scales)


class EvaluateSettings(SparkSettings, ScoringSettings, DataSettings):
    """Computes loss, top-1 and top-5 of weights on the validation images of a data set."""

    out: Path | None = setting(
        None, group="output", description="Folder for scores, scores by class, and the confusion matrix."
    )


class PredictSettings(SparkSettings, ScoringSettings):
    """Writes the most probable classes of images, in the order of the inputs; those of folders are sorted."""

    input: list[str] = setting(
        group="images",
        min_length=1,
        description="One or more images, folders that are searched for images, .txt files with a path in "
        'each line, or "-" for such lines on standard input. With engine spark: folders, and .parquet tables '
        "with image files in a column, as paths or URLs.",
    )
    out: str = setting(
        "predictions.csv",
        group="output",
        description='File for predictions, .csv, .jsonl or .parquet, or "-" for standard output; with engine '
        "spark, a folder of parquet files.",
    )
    format: Format | None = setting(
        None, group="output", description="Of out; by default by its ending, csv if it has none."
    )
    top: int = setting(5, group="output", ge=1, description="Classes of each image.")
    logits: Path | None = setting(
        None, group="output", description=".npy file for the scores, of shape (images, classes)."
    )
