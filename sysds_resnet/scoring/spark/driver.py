"""The jobs that score images on a Spark cluster: predictions of files, and outcomes of labelled images."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sysds_resnet.engine import Engine
from sysds_resnet.engine.spark.cluster import Cluster, qualified
from sysds_resnet.engine.spark.errors import job_errors
from sysds_resnet.engine.spark.progress import progress
from sysds_resnet.engine.spark.session import spark_session, whole_folder
from sysds_resnet.errors import UserError, printable
from sysds_resnet.images import Dataset
from sysds_resnet.scoring.ensemble import load_ensemble
from sysds_resnet.scoring.settings import PredictSettings, ScoringSettings
from sysds_resnet.scoring.spark.executor import (
    HEAP,
    Networks,
    OutcomesPart,
    predict_files,
    schema,
    score_labelled,
    score_vectors,
    vectors_schema,
)
from sysds_resnet.scoring.spark.tables import read_images
from sysds_resnet.settings.command_line import build

if TYPE_CHECKING:
    from pyspark import Broadcast, SparkContext
    from pyspark.sql import SparkSession


ROWS = 64
"""The number of images that a Python worker is given at a time; Spark's default would be ten thousand."""


def predictor(spark: SparkSession, weights: Sequence[str] | str, **options: Any) -> Any:
    """Makes a function of columns that predicts the classes of images.

    `frame.withColumn("prediction", predictor(spark, "runs/mine")("path", "content"))` adds a column of
    structs with the fields class_1 ... class_TOP (from 0), prob_1 ..., label_1 ... if the classes have names,
    and error, which says why an image has none of these (with on_error="skip"). Of the two columns, the first
    names images in errors; the second has their files, as bytes or as structs with a field "bytes".

    Args:
        spark: The Spark session.
        weights: The weights that `sysds_resnet.predict` takes; they are read here and sent to the executors.
        **options: More settings of `sysds_resnet.predict`: tta, scales, top, precision, heap, on_error, ...

    Raises:
        UserError: If weights cannot be read, or an option does not fit.
    """
    names = [weights] if isinstance(weights, str) else list(weights)
    settings = build(PredictSettings, {"input": ["-"], "weights": names, **options})
    return _function(spark, *gather_networks(settings, settings.top))


def _function(spark: SparkSession, networks: Networks, classes: list[str] | int) -> Any:
    """Makes the function of `predictor` from networks that were read already."""
    from pyspark.sql.functions import pandas_udf

    known = spark.sparkContext.broadcast(networks)

    def predict(columns: Iterator[tuple[pd.Series, pd.Series]]) -> Iterator[pd.DataFrame]:
        for names, files in columns:
            yield predict_files(known, names, files)

    # pyspark reads the type hints, which the import of annotations above makes plain text in this file
    hints = {"columns": Iterator[tuple[pd.Series, pd.Series]], "return": Iterator[pd.DataFrame]}
    predict.__annotations__ = hints
    return pandas_udf(predict, schema(networks.top, classes))


class Scorer:
    """A network that was read once, as functions of columns that give vectors.

    Args:
        settings: The weights, of one network, and how it scores.

    Attributes:
        classes: The names of the classes, if they have names.
        num_classes: The number of classes.

    Raises:
        UserError: If the weights cannot be read.
    """

    def __init__(self, settings: ScoringSettings) -> None:
        self._networks, classes = gather_networks(settings, 1)
        self.classes = None if isinstance(classes, int) else classes
        self.num_classes = classes if isinstance(classes, int) else len(classes)
        # Executors keep a JVM for each broadcast, so a session has a single one.
        self._sent: tuple[SparkContext, Broadcast[Networks]] | None = None

    def function(self, spark: SparkSession, features: bool) -> Any:
        """Makes a function of the columns of `names_of` and `files_of` that gives vectors of scores."""
        from pyspark.sql.functions import pandas_udf

        context = spark.sparkContext
        if self._sent is None or self._sent[0] is not context:
            self._sent = context, context.broadcast(self._networks)
        known = self._sent[1]

        def score(columns: Iterator[tuple[pd.Series, pd.Series]]) -> Iterator[pd.DataFrame]:
            for names, files in columns:
                yield score_vectors(known, names, files, features)

        hints = {"columns": Iterator[tuple[pd.Series, pd.Series]], "return": Iterator[pd.DataFrame]}
        score.__annotations__ = hints
        # Spark may compute what is deterministic several times, once for each column made of it.
        return pandas_udf(score, vectors_schema(features)).asNondeterministic()


def gather_networks(settings: ScoringSettings, top: int) -> tuple[Networks, list[str] | int]:
    """Reads the networks of the settings; gives them and their class names, or else the number of classes."""
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


def outcomes_of(cluster: Cluster, networks: Networks, dataset: Dataset) -> list[OutcomesPart]:
    """Computes the outcomes of a labelled data set's images, a few numbers for each image of each task.

    Raises:
        UserError: If the session cannot be opened, or an error stops an executor.
    """
    with spark_session(cluster, {}) as spark:
        context = spark.sparkContext
        known, images = context.broadcast(networks), context.broadcast(dataset)

        def outcomes(places: Iterator[int]) -> Iterator[OutcomesPart]:
            yield score_labelled(known, images.value, np.fromiter(places, dtype=np.int64))

        parts = context.parallelize(range(len(dataset)), math.ceil(len(dataset) / ROWS))
        with job_errors(cluster), progress(spark, "evaluation"):
            return parts.mapPartitions(outcomes).collect()


def predict_on_spark(settings: PredictSettings) -> None:
    """Runs the predict command with engine spark, and writes its predictions as parquet files.

    The output has the columns path and those of `predictor`'s structs, of which error is the last.

    Raises:
        UserError: If inputs or weights cannot be read, too many images are bad, or the output is there
            already or is not to be parquet.
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
