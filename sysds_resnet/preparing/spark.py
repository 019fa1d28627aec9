"""The preparation of a data set on a Spark cluster: each task writes a shard, or a block."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sysds_resnet.batches.reading import read
from sysds_resnet.batches.stream import OnError
from sysds_resnet.engine.spark.cluster import Cluster
from sysds_resnet.engine.spark.errors import job_errors
from sysds_resnet.images import Dataset
from sysds_resnet.images.sources.files import Split
from sysds_resnet.images.sources.shards import Shard, open_shards
from sysds_resnet.preparing.matrices import blocks_folder, write_block

if TYPE_CHECKING:
    from pyspark import Broadcast
    from pyspark.sql import SparkSession

SHARDS_PER_WORKER = 2
"""The number of shards that a job writes for each worker.

What a job has written is safe; what a job that is killed was writing is written again.
"""
BLOCKS_PER_WORKER = 16

Written = tuple[Shard, list[tuple[int, str]]]
"""A shard, and the position and reason of each image that could not be read."""


def spark_shards(
    spark: SparkSession,
    cluster: Cluster,
    out: Path,
    size: int,
    on_error: OnError,
    split: Split,
    dataset: Dataset,
    first: int,
) -> Iterator[Shard]:
    """Has the executors write the shards of a split, and gives them in their order.

    Args:
        spark: The Spark session.
        cluster: The cluster of the session.
        out: The folder that driver and executors share.
        size: The number of images in a shard.
        on_error: What to do with images that cannot be read.
        split: The split of the data set.
        dataset: The data set, which the executors can read.
        first: The number of the first shard to write.

    Raises:
        UserError: If files cannot be written, or what `on_error` raises.
    """
    total = -(-len(dataset) // size)
    write = partial(write_shard, spark.sparkContext.broadcast(dataset), out.resolve(), size, split)
    wave = SHARDS_PER_WORKER * cluster.workers
    for start in range(first, total, wave):
        numbers = range(start, min(start + wave, total))
        spark.sparkContext.setJobDescription(f"{split} shards {numbers[0]} to {numbers[-1]}")
        with job_errors(cluster):
            written = spark.sparkContext.parallelize(numbers, len(numbers)).map(write).collect()
        for shard, errors in written:
            for index, reason in errors:
                on_error(dataset, index, reason)
            yield shard


def spark_blocks(
    spark: SparkSession, cluster: Cluster, root: Path, split: Split, size: int, number: int
) -> Iterator[int]:
    """Has the executors write the blocks of a split, and gives their numbers in order.

    `root` is the folder of the prepared data set, which driver and executors share; `size` is the number of
    images in a block, and `number` that of blocks.
    """
    folder = blocks_folder(root, split, size).resolve()
    write = partial(write_block, open_shards(root.resolve(), split), folder, size)
    wave = BLOCKS_PER_WORKER * cluster.workers
    for start in range(0, number, wave):
        numbers = range(start, min(start + wave, number))
        spark.sparkContext.setJobDescription(f"{split} matrices {numbers[0]} to {numbers[-1]}")
        with job_errors(cluster):
            yield from spark.sparkContext.parallelize(numbers, len(numbers)).map(write).collect()


def write_shard(dataset: Broadcast[Dataset], out: Path, size: int, split: Split, number: int) -> Written:
    """Reads and writes one shard, in an executor."""
    known = dataset.value
    indices = np.arange(number * size, min((number + 1) * size, len(known)))
    samples = read(known, indices, 0, replace=False)
    labels = known.labels[samples.indices].astype(np.int64)
    return Shard.write(out, split, number, samples.images, labels), samples.errors
