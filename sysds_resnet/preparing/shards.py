"""The shards of a data set that is prepared, written on this machine or by a Spark cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tqdm import tqdm

from sysds_resnet.batches.bad_images import BadImages
from sysds_resnet.batches.order import sequential_order
from sysds_resnet.batches.readers import Readers
from sysds_resnet.batches.stream import BatchStream
from sysds_resnet.engine.spark.session import spark_session
from sysds_resnet.images import Dataset
from sysds_resnet.images.sources.files import Split
from sysds_resnet.images.sources.shards import PROGRESS, Manifest, Shard
from sysds_resnet.preparing.settings import PrepareSettings
from sysds_resnet.preparing.spark import spark_shards
from sysds_resnet.system.files import write_whole

Shards = Callable[[Split, Dataset, int], Iterable[Shard]]
"""A function that yields the shards of a split in their order, as they are written.

Its arguments are the split, its data set, and the number of the first shard to write.
"""


@contextmanager
def shard_writer(settings: PrepareSettings, sets: list[Dataset], bad: BadImages) -> Iterator[Shards]:
    """Gives the function that writes shards, on this machine or on a cluster."""
    if settings.engine == "spark":
        cluster = settings.cluster()
        with spark_session(cluster, {}) as spark:
            yield partial(spark_shards, spark, cluster, settings.out, settings.shard_images, bad)
    else:
        with Readers(sets, settings.workers) as readers:
            yield partial(_local_shards, settings, readers, bad)


def _local_shards(
    settings: PrepareSettings, readers: Readers, bad: BadImages, split: Split, dataset: Dataset, first: int
) -> Iterator[Shard]:
    with BatchStream(
        dataset,
        sequential_order(len(dataset)),
        settings.shard_images,
        readers,
        drop_last=False,
        epochs=1,
        start_step=first,
        prefetch=settings.prefetch,
        on_error=bad,
    ) as stream:
        for batch in stream:
            yield Shard.write(settings.out, split, batch.step, batch.images, batch.labels)


def write_shards(
    settings: PrepareSettings, split: Split, dataset: Dataset, shards: Shards, manifest: Manifest
) -> None:
    """Writes the shards of a split that are missing, noting each in the manifest once it is whole."""
    counts = manifest.shards[split]
    size = settings.shard_images
    initial = min(len(counts) * size, len(dataset))
    with tqdm(total=len(dataset), initial=initial, unit="image", desc=split, disable=None) as bar:
        for shard in shards(split, dataset, len(counts)):
            manifest.files.update(shard.files)
            counts.append(shard.images)
            save_manifest(settings.out / PROGRESS, manifest)
            bar.update(min(len(counts) * size, len(dataset)) - bar.n)


def save_manifest(path: Path, manifest: Manifest) -> None:
    """Writes a manifest whole or not at all."""
    write_whole({path: lambda temporary: temporary.write_text(manifest.to_json())})
