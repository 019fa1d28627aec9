"""The images on a cluster as a Spark data frame, from folders of files and tables with files in a column."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import TYPE_CHECKING

from sysds_resnet.engine.spark.cluster import qualified
from sysds_resnet.errors import UserError, one_line
from sysds_resnet.images.sources.files import IMG_EXTENSIONS

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


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
    from pyspark.sql.functions import col, concat, lit, monotonically_increasing_id
    from pyspark.sql.types import BinaryType, StructType

    for field in frame.schema:
        kind, column = field.dataType, col(f"`{field.name}`")
        if isinstance(kind, StructType) and "bytes" in kind.names:
            kind, column = kind["bytes"].dataType, column["bytes"]
        if isinstance(kind, BinaryType):
            if "path" in frame.columns:
                return frame.select("path", column.alias("content"))
            row = concat(lit(f"{name}, row "), monotonically_increasing_id().cast("string"))
            return frame.select(row.alias("path"), column.alias("content"))
    raise UserError(
        f"images {name}: found columns {', '.join(frame.columns)}, expected one with the bytes of image "
        "files, or structs with a field bytes: give another table"
    )
