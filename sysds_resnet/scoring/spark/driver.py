"""Scoring on a Spark cluster: predictions for a column of image files, by networks that each executor keeps.

Each Python worker of an executor starts a JVM with SystemDS the first time that it is asked, loads the
networks into it, and keeps both for as long as it lives: what scores images there is what scores them here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from sysds_resnet.batches.reading import read
from sysds_resnet.engine import Engine
from sysds_resnet.engine.spark.cluster import Cluster, qualified
from sysds_resnet.engine.spark.errors import job_errors
from sysds_resnet.engine.spark.progress import progress
from sysds_resnet.engine.spark.session import spark_session, whole_folder
from sysds_resnet.errors import UserError, printable
from sysds_resnet.images import Dataset
from sysds_resnet.images.encoded import EncodedDataset
from sysds_resnet.images.sources.base import BytesSource
from sysds_resnet.images.views import View, seen_in
from sysds_resnet.network.model import ResNet, default_batch
from sysds_resnet.scoring.ensemble import Ensemble, ScoringSettings, load_ensemble
from sysds_resnet.scoring.outcomes import rows_of
from sysds_resnet.scoring.predictions import to_table
from sysds_resnet.scoring.spark.tables import read_images

if TYPE_CHECKING:
    from pyspark import Broadcast
    from pyspark.sql import SparkSession
    from pyspark.sql.types import StructType

    from sysds_resnet.predict import PredictSettings

ROWS = 64
"""Images that a Python worker is given at a time; Spark's default would be ten thousand."""

HEAP = 2 * 2**30
"""Bytes of heap of an executor's JVM for scoring, if no other is asked for."""


@dataclass(frozen=True, eq=False)
class Networks:
    """What executors need to score images.

    Attributes:
        parts: State dict, metadata and name of each network.
        sizes: Of the images, as `open_files` takes them.
        views: Of each image.
        engine: Arguments for the executors' engines.
        top: Classes of each image.
        on_error: Whether an image that cannot be read ends the job, or has a reason in the place of classes.
    """

    parts: list[tuple[dict[str, np.ndarray], dict[str, Any], str]]
    sizes: dict[str, int | None]
    views: list[View]
    engine: dict[str, Any]
    top: int
    on_error: Literal["raise", "skip"]

    def build(self) -> Ensemble:
        """The networks on an engine of this process's own."""
        engine = Engine(**self.engine)
        models = [
            ResNet.from_state_dict(weights, engine, name, **metadata)
            for weights, metadata, name in self.parts
        ]
        return Ensemble(models, [name for _, _, name in self.parts])


def predictor(spark: SparkSession, weights: Sequence[str] | str, **options: Any) -> Any:
    """A function of columns that predicts the classes of images.

    `frame.withColumn("prediction", predictor(spark, "runs/mine")("path", "content"))` adds a column of
    structs with the fields class_1 ... class_TOP (from 0), prob_1 ..., label_1 ... if the classes have names,
    and error, which says why an image has none of these (with on_error="skip"). Of the two columns, one
    names images in errors; the other has their files: bytes, or structs with a field "bytes".

    Args:
        spark: The session.
        weights: As of `sysds_resnet.predict`; they are read here, and sent to the executors.
        **options: More settings of `sysds_resnet.predict`: tta, scales, top, precision, heap, on_error, ...

    Raises:
        UserError: If weights cannot be read, or an option does not fit.
    """
    from sysds_resnet.predict import PredictSettings
    from sysds_resnet.settings.command_line import build

    names = [weights] if isinstance(weights, str) else list(weights)
    settings = build(PredictSettings, {"input": ["-"], "weights": names, **options})
    return _function(spark, *gather_networks(settings, settings.top))


def _function(spark: SparkSession, networks: Networks, classes: list[str] | int) -> Any:
    """`predictor` of networks that are read."""
    from pyspark.sql.functions import pandas_udf

    known = spark.sparkContext.broadcast(networks)

    def predict(columns: Iterator[tuple[pd.Series, pd.Series]]) -> Iterator[pd.DataFrame]:
        for names, files in columns:
            yield predict_files(known, names, files)

    # pyspark reads the hints, and annotations are text here
    hints = {"columns": Iterator[tuple[pd.Series, pd.Series]], "return": Iterator[pd.DataFrame]}
    predict.__annotations__ = hints
    return pandas_udf(predict, schema(networks.top, classes))


def gather_networks(settings: ScoringSettings, top: int) -> tuple[Networks, list[str] | int]:
    """The networks of the settings, and their classes' names or, where these have none, their number."""
    with Engine("double", HEAP, settings.blas) as engine:
        ensemble, sizes = load_ensemble(settings, engine)
        parts = [
            (model.state_dict(), model.description(), name)
            for model, name in zip(ensemble.models, settings.weights, strict=True)
        ]
        classes = ensemble.classes or ensemble.num_classes
    options = settings.engine_options()
    options |= {"heap": options["heap"] or HEAP, "threads": 1}
    return Networks(parts, sizes, settings.views(), options, top, settings.on_error), classes


def schema(top: int, classes: list[str] | int) -> StructType:
    """Of the structs that `predictor` gives."""
    from pyspark.sql.types import DoubleType, LongType, StringType, StructField, StructType

    ranks = range(1, min(top, classes if isinstance(classes, int) else len(classes)) + 1)
    kinds = {"class": LongType(), "prob": DoubleType()}
    if not isinstance(classes, int):
        kinds["label"] = StringType()
    fields = [StructField(f"{name}_{rank}", kind) for name, kind in kinds.items() for rank in ranks]
    return StructType([*fields, StructField("error", StringType())])


def predict_files(known: Broadcast[Networks], names: pd.Series, files: pd.Series) -> pd.DataFrame:
    """Predictions for image files, in an executor.

    Args:
        known: What to predict with.
        names: Of the images.
        files: Their bytes, or structs with a field "bytes".

    Raises:
        UserError: If one cannot be read, unless that is to be skipped.
    """
    ensemble, networks = _ensemble(known), known.value
    contents = [file["bytes"] if isinstance(file, dict) else file for file in files]
    dataset = EncodedDataset(BytesSource([str(name) for name in names], contents), **networks.sizes)
    seen = seen_in(dataset, networks.views)
    size = default_batch(ensemble.engine, *seen.image_size)
    tables, reasons = [], {}
    for start in range(0, len(contents), size):
        places = np.arange(start, min(start + size, len(contents)))
        samples = read(seen, places, 0, replace=False)
        if samples.errors and networks.on_error == "raise":
            raise UserError(samples.errors[0][1])
        reasons |= dict(samples.errors)
        if len(samples.indices):
            scores = ensemble.scores(samples.images, len(networks.views))
            table = to_table([""] * len(scores), scores, ensemble.classes, networks.top).drop(columns="path")
            tables.append(table.set_index(samples.indices))
    columns = [field.name for field in schema(networks.top, ensemble.classes or ensemble.num_classes)]
    table = pd.concat(tables) if tables else pd.DataFrame(columns=columns[:-1])
    table = table.reindex(range(len(contents)))
    table["error"] = pd.Series(reasons, dtype=object)
    for name in table.columns:
        if name.startswith("class_"):
            table[name] = table[name].astype("Int64")  # which can be missing
    return table[columns]


@dataclass(frozen=True, eq=False)
class OutcomesPart:
    """What a task found of its images.

    Attributes:
        rows: As of `rows_of` in scoring/outcomes.py.
        errors: Position and reason of each image that could not be read.
        precision: Of the multiplies there.
    """

    rows: pd.DataFrame
    errors: list[tuple[int, str]]
    precision: str


def outcomes_of(cluster: Cluster, networks: Networks, dataset: Dataset) -> list[OutcomesPart]:
    """Outcomes of the images of a labelled data set, each task's a few numbers for each of its images.

    Raises:
        UserError: As of `spark_session`, and what stops an executor.
    """
    with spark_session(cluster, {}) as spark:
        context = spark.sparkContext
        known, images = context.broadcast(networks), context.broadcast(dataset)

        def outcomes(places: Iterator[int]) -> Iterator[OutcomesPart]:
            yield _outcomes(known, images.value, np.fromiter(places, dtype=np.int64))

        parts = context.parallelize(range(len(dataset)), math.ceil(len(dataset) / ROWS))
        with job_errors(cluster), progress(spark, "evaluation"):
            return parts.mapPartitions(outcomes).collect()


def _outcomes(known: Broadcast[Networks], dataset: Dataset, places: np.ndarray) -> OutcomesPart:
    """Outcomes of the images at some places of a data set, in an executor."""
    ensemble, views = _ensemble(known), known.value.views
    seen = seen_in(dataset, views)
    samples = read(seen, places, 0, replace=False)
    labels = np.asarray(dataset.labels)[samples.indices]
    if len(samples.indices):
        scores = ensemble.scores(samples.images, len(views))
    else:
        scores = np.empty((0, ensemble.num_classes))
    return OutcomesPart(rows_of(labels, scores), samples.errors, ensemble.engine.multiply.precision)


def predict_on_spark(settings: PredictSettings) -> None:
    """The command with engine spark: predictions for tables and folders, as parquet files.

    The output has the columns path, those of `predictor`'s structs, and error.

    Raises:
        UserError: If inputs or weights cannot be read, or the output is there already or no parquet.
    """
    if settings.logits is not None or settings.format not in (None, "parquet") or settings.out == "-":
        raise UserError(
            "out: found --logits, another --format or standard output with engine spark, expected a folder "
            "for parquet files; leave them out"
        )
    settings.check_cluster()
    networks, classes = gather_networks(settings, settings.top)
    out = qualified(settings.out)
    cluster = settings.cluster()
    with spark_session(cluster, {"spark.sql.execution.arrow.maxRecordsPerBatch": str(ROWS)}) as spark:
        frame = read_images(spark, settings.input)
        predicted = frame.select("path", _function(spark, networks, classes)("path", "content").alias("p"))
        with job_errors(cluster), whole_folder(spark, out) as unfinished, progress(spark, "predictions"):
            predicted.select("path", "p.*").write.parquet(unfinished)
            written = spark.read.parquet(unfinished)
            n, bad = written.count(), written.filter("error is not null").count()
    if bad:
        print(printable(f"{bad} images cannot be read: column error of {settings.out}"))
    print(printable(f"{n - bad} images: {settings.out}"))
    if bad > settings.max_bad * n:
        raise UserError(
            f"{settings.out}: found {bad} images that cannot be read, expected no more than "
            f"{settings.max_bad:g} of {n}; repair or remove them, or raise --max-bad"
        )


@cache
def _ensemble(known: Broadcast[Networks]) -> Ensemble:
    """The networks of this process; a worker has the same broadcast for all its tasks."""
    return known.value.build()
