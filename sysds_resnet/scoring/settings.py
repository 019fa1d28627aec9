"""The settings of evaluation and prediction."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

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
    """The settings of commands that run trained networks."""

    weights: list[str] = setting(
        group="input",
        value="WEIGHTS",
        common=True,
        min_length=1,
        description="The weights of one or more networks: .safetensors, .pth, a run folder, a Hugging Face "
        "folder, ... The probabilities of several networks are averaged.",
    )
    image_size: int | None = setting(
        None,
        group="views of images",
        common=True,
        ge=32,
        description="The side of the images in pixels; by default what the weights say, or 224.",
    )
    resize_size: int | None = setting(
        None,
        group="views of images",
        ge=32,
        description="The shorter side of the images before the crop, in pixels; by default what the weights "
        "say, or 256 for images of 224, and in this proportion for others.",
    )
    tta: Tta = setting(
        "none",
        group="views of images",
        common=True,
        description="The views of each image whose probabilities are averaged: none for the centre; flip for "
        "it and its mirror image; five for corners and centre; ten for these and their mirror images.",
    )
    scales: list[Scale] = setting(
        [1.0],
        group="views of images",
        min_length=1,
        description="The factors of resize_size; all views are taken at each of them.",
    )

    def views(self) -> list[View]:
        """Gives the views of each image that these settings ask for."""
        return choose_views(self.tta, self.scales)


class EvaluateSettings(SparkSettings, ScoringSettings, DataSettings):
    """Computes loss, top-1 and top-5 of weights on the validation images of a data set."""

    examples: ClassVar = {"--weights runs/photos --dataset photos": "the scores of a run's best weights"}

    out: Path | None = setting(
        None,
        group="output",
        common=True,
        description="The folder for scores, scores by class, and the confusion matrix.",
    )


class PredictSettings(SparkSettings, ScoringSettings):
    """Writes the most probable classes of images, in the order of the inputs; those of folders are sorted."""

    examples: ClassVar = {
        "--weights runs/photos --input new/*.jpg": "the five most probable classes of some files",
        "--weights runs/photos --input new --out - --top 1": "a folder's images, to standard output",
    }

    input: list[str] = setting(
        group="input",
        value="PATH",
        common=True,
        min_length=1,
        description="The images: one or more files, folders that are searched for images, .txt files with a "
        'path in each line, or "-" for such lines on standard input. With engine spark: folders, and '
        ".parquet tables with image files in a column, as paths or URLs.",
    )
    out: str = setting(
        "predictions.csv",
        group="output",
        common=True,
        description='The file for predictions, .csv, .jsonl or .parquet, or "-" for standard output; with '
        "engine spark, a folder of parquet files.",
    )
    format: Format | None = setting(
        None,
        group="output",
        common=True,
        description="The format of out; by default that of its ending, or csv.",
    )
    top: int = setting(
        5, group="output", common=True, ge=1, description="The number of classes to give for each image."
    )
    logits: Path | None = setting(
        None, group="output", description="The .npy file for the scores, of shape (images, classes)."
    )
