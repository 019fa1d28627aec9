"""The scoring in the executors of a Spark cluster.

Each Python worker of an executor starts a JVM with SystemDS the first time that it is asked, loads the
networks into it, and keeps both for as long as it lives. So the same code scores images there and on one
machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from sysds_resnet.batches.reading import Samples, read
from sysds_resnet.engine import Engine
from sysds_resnet.images import Dataset
from sysds_resnet.images.views import View, seen_in
from sysds_resnet.network.inference import log_softmax
from sysds_resnet.network.model import Model
from sysds_resnet.scoring.ensemble import Ensemble
from sysds_resnet.scoring.files_in_memory import samples_of
from sysds_resnet.scoring.outcomes import rows_of
from sysds_resnet.scoring.predictions import to_table

if TYPE_CHECKING:
    from pyspark import Broadcast
    from pyspark.sql.types import StructType


HEAP = 2 * 2**30
"""The bytes of heap of an executor's JVM for scoring, unless another number is asked for."""


@dataclass(frozen=True, eq=False)
class Networks:
    """The networks, with all that executors need to score images by them.

    Attributes:
        parts: The state dict, the metadata and the name of each network.
        sizes: The sizes of the images, as `open_files` takes them.
        views: The views of each image.
        engine: The arguments for the executors' engines.
        top: The number of classes to give for each image.
        on_error: Whether an image that cannot be read ends the job, or has a reason in place of classes.
    """

    parts: list[tuple[dict[str, np.ndarray], dict[str, Any], str]]
    sizes: dict[str, int | None]
    views: list[View]
    engine: dict[str, Any]
    top: int
    on_error: Literal["raise", "skip"]

    def build(self) -> Ensemble:
        """Makes the networks, on a new engine of this process."""
        engine = Engine(**self.engine)
        models = [
            Model.from_state_dict(weights, engine, name, **metadata) for weights, metadata, name in self.parts
        ]
        return Ensemble(models, [name for _, _, name in self.parts])


def schema(top: int, classes: list[str] | int) -> StructType:
    """Gives the schema of the structs that `predictor` gives."""
    from pyspark.sql.types import DoubleType, LongType, StringType, StructField, StructType

    ranks = range(1, min(top, classes if isinstance(classes, int) else len(classes)) + 1)
    kinds = {"class": LongType(), "prob": DoubleType()}
    if not isinstance(classes, int):
        kinds["label"] = StringType()
    fields = [StructField(f"{name}_{rank}", kind) for name, kind in kinds.items() for rank in ranks]
    return StructType([*fields, StructField("error", StringType())])


def predict_files(known: Broadcast[Networks], names: pd.Series, files: pd.Series) -> pd.DataFrame:
    """Predicts the classes of image files, in an executor.

    Args:
        known: The networks to predict with.
        names: The names of the images.
        files: The bytes of the files, or structs with a field "bytes".

    Raises:
        UserError: If an image cannot be read, unless it is to be skipped.
    """
    ensemble, networks = _ensemble(known), known.value
    tables, reasons = [], {}
    for samples in _samples_of(known, names, files):
        reasons |= dict(samples.errors)
        if len(samples.indices):
            scores = ensemble.scores(samples.images, len(networks.views))
            table = to_table([""] * len(scores), scores, ensemble.classes, networks.top).drop(columns="path")
            tables.append(table.set_index(samples.indices))
    columns = [field.name for field in schema(networks.top, ensemble.classes or ensemble.num_classes)]
    table = pd.concat(tables) if tables else pd.DataFrame(columns=columns[:-1])
    table = table.reindex(range(len(files)))
    table["error"] = pd.Series(reasons, dtype=object)
    for name in table.columns:
        if name.startswith("class_"):
            table[name] = table[name].astype("Int64")  # integers that may be missing
    return table[columns]


def vectors_schema(features: bool) -> StructType:
    """Gives the schema of the structs that `score_vectors` gives."""
    from pyspark.sql.types import ArrayType, DoubleType, StringType, StructField, StructType

    names = ["logits", "probabilities", *(["features"] if features else [])]
    fields = [StructField(name, ArrayType(DoubleType())) for name in names]
    return StructType([StructField("prediction", DoubleType()), *fields, StructField("error", StringType())])


def score_vectors(
    known: Broadcast[Networks], names: pd.Series, files: pd.Series, features: bool
) -> pd.DataFrame:
    """Computes for each image the class, the logits and the probabilities of all, in an executor.

    Args:
        known: The network to score with, a single one that sees each image once.
        names: The names of the images.
        files: The bytes of the files, or structs with a field "bytes".
        features: Whether to give the features too, of which the final layer makes the logits.

    Raises:
        UserError: If an image cannot be read, unless it is to be skipped.
    """
    [model] = _ensemble(known).models
    [(weights, _, _)] = known.value.parts
    # None where there is nothing, which Spark takes for null; pandas would put NaN there
    values: dict[str, list[Any]] = {field.name: [None] * len(files) for field in vectors_schema(features)}
    for samples in _samples_of(known, names, files):
        for place, reason in samples.errors:
            values["error"][place] = reason
        if not len(samples.indices):
            continue
        found = {}
        if features:
            found["features"] = model.features(samples.images)
            found["logits"] = found["features"] @ weights["fc.weight"].T + weights["fc.bias"]
        else:
            found["logits"] = model.logits(samples.images)
        found["probabilities"] = np.exp(log_softmax(found["logits"]))
        found["prediction"] = found["logits"].argmax(axis=1).astype(float)
        for name, rows in found.items():
            for place, row in zip(samples.indices.tolist(), rows, strict=True):
                values[name][place] = row
    return pd.DataFrame(values, dtype=object)


def _samples_of(known: Broadcast[Networks], names: pd.Series, files: pd.Series) -> Iterator[Samples]:
    networks, engine = known.value, _ensemble(known).engine
    skip = networks.on_error == "skip"
    return samples_of(list(map(str, names)), list(files), engine, networks.sizes, networks.views, skip)


@dataclass(frozen=True, eq=False)
class OutcomesPart:
    """The outcomes of a task's images.

    Attributes:
        rows: The outcomes, as `rows_of` in scoring/outcomes.py gives them.
        errors: The position and the reason of each image that could not be read.
        precision: The precision of the multiplies in the executor.
    """

    rows: pd.DataFrame
    errors: list[tuple[int, str]]
    precision: str


def score_labelled(known: Broadcast[Networks], dataset: Dataset, places: np.ndarray) -> OutcomesPart:
    """Computes the outcomes of the images at some positions of a data set, in an executor."""
    ensemble, views = _ensemble(known), known.value.views
    seen = seen_in(dataset, views)
    samples = read(seen, places, 0, replace=False)
    labels = np.asarray(dataset.labels)[samples.indices]
    if len(samples.indices):
        scores = ensemble.scores(samples.images, len(views))
    else:
        scores = np.empty((0, ensemble.num_classes))
    return OutcomesPart(rows_of(labels, scores), samples.errors, ensemble.engine.multiply.precision)


@cache
def _ensemble(known: Broadcast[Networks]) -> Ensemble:
    """Gives the networks of this process, made once: a worker has the same broadcast for all its tasks."""
    return known.value.build()
