"""The images of a Spark data frame as a data set on this machine, to train on."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sysds_resnet.errors import UserError
from sysds_resnet.system.arrow import arrow

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, Row

ROWS = 64
"""The number of images that are written at a time."""


def collect_images(frame: DataFrame, image: Column, label: str, path: Path) -> None:
    """Writes the images of a data frame and their labels to a parquet file on this machine.

    Rows come one partition after the other, so that this process holds a few of them at a time.

    Args:
        frame: The data frame.
        image: The bytes of its image files.
        label: The name of the column of labels, numbers from 0. Names of the classes in its metadata, as
            StringIndexer leaves there, are written too.
        path: The path of the file.

    Raises:
        UserError: If there is no such column, a label is no number from 0, there are fewer than two classes,
            or no image is in a row.
    """
    from pyspark.sql.functions import col

    pa = arrow(path)
    classes = _check_labels(frame, label)
    names = frame.schema[label].metadata.get("ml_attr", {}).get("vals") or [str(i) for i in range(classes)]
    schema = pa.schema({"image": pa.binary(), "label": pa.int64()})
    features = {"label": {"_type": "ClassLabel", "names": list(names)}}
    schema = schema.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    chosen = frame.select(image.alias("image"), col(f"`{label}`").cast("long").alias("label"))
    rows = chosen.toLocalIterator(prefetchPartitions=True)
    with pa.parquet.ParquetWriter(path, schema) as file:
        while part := list(islice(rows, ROWS)):
            file.write_batch(pa.record_batch(_columns(part), schema=schema))


def _columns(rows: list[Row]) -> list[list[Any]]:
    images = [None if row.image is None else bytes(row.image) for row in rows]
    if None in images:
        raise UserError(
            "imageCol: found a row without an image, or with a path that its executor cannot open, expected "
            "a file in each row; filter such rows out"
        )
    return [images, [row.label for row in rows]]


def _check_labels(frame: DataFrame, label: str) -> int:
    """Gives the number of classes, one more than the largest label."""
    from pyspark.sql.functions import col, count, floor, max, when
    from pyspark.sql.types import NumericType

    if label not in frame.columns:
        raise UserError(
            f"labelCol: found no column {label!r}, expected one of {', '.join(frame.columns)}; choose one"
        )
    kind = frame.schema[label].dataType
    if not isinstance(kind, NumericType):
        raise UserError(
            f"labelCol: found a column {label!r} of {kind.simpleString()}, expected numbers of classes from "
            "0; make them by StringIndexer"
        )
    value = col(f"`{label}`")
    wrong = value.isNull() | (value < 0) | (value != floor(value))
    found = frame.agg(max(value).alias("last"), count(when(wrong, 1)).alias("wrong")).first()
    if found.wrong or found.last is None:
        what = (
            f"{found.wrong} labels in {label!r} that are no whole numbers from 0"
            if found.wrong
            else "no rows"
        )
        raise UserError(
            f"labelCol: found {what}, expected the number of a class in each row; filter or index them"
        )
    if found.last < 1:
        raise UserError(
            f"labelCol: found one class in {label!r}, expected at least two; there is nothing to tell apart"
        )
    return int(found.last) + 1
