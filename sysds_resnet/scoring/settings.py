"""The settings of evaluation and prediction."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from sysds_resnet.batches.settings import ReadingSettings
from sysds_resnet.engine.gpu.cuda import DEVICE, GPUS, choose_gpus, chosen_device
from sysds_resnet.engine.jvm.memory import parse_size
from sysds_resnet.engine.jvm.multiply import Blas, Precision
from sysds_resnet.engine.spark.settings import SparkSettings
from sysds_resnet.images.settings import DataSettings
from sysds_resnet.images.views import Tta, View, choose_views
from sysds_resnet.scoring.predictions import Format

Scale = Annotated[float, Field(ge=0.25, le=4)]


class ScoringSettings(ReadingSettings):
    """Settings of commands that run trained networks."""

    weights: list[str] = Field(
        min_length=1,
        description="One or more of: .safetensors, .pth, a run folder, a Hugging Face folder, ... Of "
        "several, the probabilities are averaged.",
    )
    image_size: int | None = Field(
        None, ge=32, description="Side of the images in pixels; by default what the weights say, or 224."
    )
    resize_size: int | None = Field(
        None,
        ge=32,
        description="Shorter side before the crop; by default as the weights say, or 256.",
    )
    tta: Tta = Field(
        "none",
        description="Views of each image whose probabilities are averaged: the centre; it and its mirror "
        "image; corners and centre; these and their mirror images.",
    )
    scales: list[Scale] = Field(
        [1.0], min_length=1, description="Factors of resize_size; all views are taken at each of them."
    )
    precision: Precision = Field("single", description="Of matrix multiplies.")
    device: str = Field("cpu", description=DEVICE)
    gpus: int | None = Field(None, ge=1, description=GPUS)
    blas: Blas = Field("auto", description="The fastest, or openblas, or none for plain Java.")
    heap: str | None = Field(None, description="JVM heap, such as 12g; by default half of the memory.")

    def engine_options(self) -> dict[str, Any]:
        """Arguments for the engine that these settings ask for."""
        heap = self.heap and parse_size(self.heap)
        gpus = choose_gpus(*chosen_device(self.device, self.gpus))
        return {"precision": self.precision, "heap": heap, "blas": self.blas, "gpus": gpus}

    def views(self) -> list[View]:
        """The views of each image that these settings ask for."""
        return choose_views(self.tta, self.scales)


class EvaluateSettings(SparkSettings, ScoringSettings, DataSettings):
    """Computes loss, top-1 and top-5 of weights on the validation images of a data set."""

    out: Path | None = Field(
        None, description="Folder for scores, scores by class, and the confusion matrix."
    )


class PredictSettings(SparkSettings, ScoringSettings):
    """Writes the most probable classes of images, in the order of the inputs; those of folders are sorted."""

    input: list[str] = Field(
        min_length=1,
        description="One or more images, folders that are searched for images, .txt files with a path in "
        'each line, or "-" for such lines on standard input. With engine spark: folders, and .parquet tables '
        "with image files in a column, as paths or URLs.",
    )
    out: str = Field(
        "predictions.csv",
        description='File for predictions, .csv, .jsonl or .parquet, or "-" for standard output; with engine '
        "spark, a folder of parquet files.",
    )
    format: Format | None = Field(None, description="Of out; by default by its ending, csv if it has none.")
    top: int = Field(5, ge=1, description="Classes of each image.")
    logits: Path | None = Field(None, description=".npy file for the scores, of shape (images, classes).")
