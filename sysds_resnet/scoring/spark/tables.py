"""The images on a cluster as a Spark data frame, from folders of files and tables with files in a column."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from sysds_resnet.engine.spark.cluster import qualified
from sysds_resnet.errors import UserError, one_line
from sysds_resnet.images.sources.files import IMG_EXTENSIONS

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession


def read_images(spark: SparkSession, inputs: Sequence[str]) -> DataFrame:
    """Reads the image files of folders and tables into a data frame with the columns path and content.

    Args:
        spark: The Spark session.
        inputs: The paths or URLs of folders, which are searched for images, and of .parquet tables with image
            files in a column, and perhaps their names in a column path.

    Raises:
        UserError: If there is nothing at a path, or a table has no images.
    """
    from pyspark.errors import AnalysisException

    frames = []
    for name in inputs:
        try:
            if name.lower().rstrip("/").endswith(".parquet"):
                frames.append(_table(spark.read.parquet(qualified(name)), name))
            else:
                endings = ",".join(f"*{ending},*{ending.upper()}" for ending in IMG_EXTENSIONS)
                reader = spark.read.format("binaryFile").option("recursiveFileLookup", "true")
                reader = reader.option("pathGlobFilter", f"{{{endings}}}")
                frames.append(reader.load(qualified(name)).select("path", "content"))
        except AnalysisException as error:
            raise UserError(
                f"images {name}: found none ({one_line(error)}), expected a folder of images or a .parquet "
                "table: check the path"
            ) from error
    return reduce(lambda a, b: a.union(b), frames)


def _table(frame: DataFrame, name: str) -> DataFrame:
    """Gives the columns path and content of a table."""
    from pyspark.sql.functions import concat, lit, monotonically_increasing_id

    for field in frame.schema:
        column = bytes_of(frame, field.name)
        if column is None:
            continue
        if "path" in frame.columns:
            return frame.select("path", column.alias("content"))
        row = concat(lit(f"{name}, row "), monotonically_increasing_id().cast("string"))
        return frame.select(row.alias("path"), column.alias("content"))
    raise UserError(
        f"images {name}: found columns {', '.join(frame.columns)}, expected one with the bytes of image "
        "files, or structs with a field bytes: give another table"
    )


def bytes_of(frame: DataFrame, name: str) -> Column | None:
    """Gives the bytes of files in a column of bytes, or of structs with a field bytes; None for others."""
    from pyspark.sql.functions import col
    from pyspark.sql.types import BinaryType, StructType

    kind, column = frame.schema[name].dataType, col(f"`{name}`")
    if isinstance(kind, StructType) and "bytes" in kind.names:
        kind, column = kind["bytes"].dataType, column["bytes"]
    return column if isinstance(kind, BinaryType) else None


def files_of(frame: DataFrame, name: str) -> Column:
    """Gives the bytes of the image files in a column of bytes, of structs with a field bytes, or of paths.

    Executors open the paths, which must be those of files that each of them sees. What cannot be opened is
    null, as if the row had no file.

    Raises:
        UserError: If there is no such column, or it holds something else.
    """
    from pyspark.sql.functions import col, pandas_udf
    from pyspark.sql.types import StringType

    if name not in frame.columns:
        raise UserError(
            f"imageCol: found no column {name!r}, expected one of {', '.join(frame.columns)}; choose one"
        )
    column = bytes_of(frame, name)
    if column is not None:
        return column
    if not isinstance(frame.schema[name].dataType, StringType):
        raise UserError(
            f"imageCol: found a column {name!r} of {frame.schema[name].dataType.simpleString()}, expected "
            "bytes of image files, structs with a field bytes, or paths; read files by "
            "spark.read.format('binaryFile')"
        )
    return pandas_udf(_read_paths, "binary")(col(f"`{name}`"))


def names_of(frame: DataFrame, name: str) -> Column:
    """Gives the names of the image files in such a column: the paths, or "in a row" for bytes."""
    from pyspark.sql.functions import coalesce, col, lit
    from pyspark.sql.types import StringType

    if isinstance(frame.schema[name].dataType, StringType):
        return coalesce(col(f"`{name}`"), lit("in a row"))
    return lit("in a row")


def _read_paths(paths: pd.Series) -> pd.Series:
    return pd.Series([_content(path) for path in paths], dtype=object)  # in which None stays None


_read_paths.__annotations__ = {"paths": pd.Series, "return": pd.Series}  # which pyspark reads


def _content(path: str | None) -> bytes | None:
    """Gives the bytes of a file; None if there is no path, or no such file."""
    try:
        return None if path is None else Path(path.removeprefix("file:")).read_bytes()
    except OSError:
        return None
