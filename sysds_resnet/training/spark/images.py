"""A data loader on a Spark cluster: executors read the images with which the engine then computes there.

Images do not pass through the driver. Between two steps, tasks in Python read, augment and mix the images of
each micro-batch, and write them as a matrix into a folder that all machines share (`write_micro_batch`).
"""

from __future__ import annotations

import contextlib
import math
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from py4j.java_gateway import JavaObject
from py4j.protocol import Py4JError

from sysds_resnet.batches.order import BatchSamples
from sysds_resnet.batches.reading import read
from sysds_resnet.batches.stream import OnError, raise_error
from sysds_resnet.engine import Engine
from sysds_resnet.engine.blocks import write_matrix
from sysds_resnet.errors import UserError
from sysds_resnet.images import Dataset
from sysds_resnet.images.pixels.mixing import Mixing
from sysds_resnet.network.arrays import check_labels
from sysds_resnet.system.shared_files import write_shared

if TYPE_CHECKING:
    from pyspark import Broadcast


@dataclass(frozen=True, eq=False)
class MicroBatch:
    """A micro-batch of k images that a task is to read and to write.

    Attributes:
        path: The file for its images, as a matrix.
        indices: The positions of its samples in the data set, of shape (k + 1,). The first one is not among
            the k images: it is mixed with the first of them.
        epochs: The epoch in which each sample is seen, of shape (k + 1,).
        epoch, step: The epoch of the batch that it is part of, and that batch's place in it, both from 0.
    """

    path: str
    indices: np.ndarray
    epochs: np.ndarray
    epoch: int
    step: int


@dataclass(frozen=True, eq=False)
class Written:
    """The result of a task, beside the file that it has written.

    Attributes:
        y: The classes of its images, from 1, as `check_labels` gives them; 0 in rows without an image.
        errors: The position in the data set and the reason for each image that could not be read.
    """

    y: np.ndarray
    errors: list[tuple[int, str]]


@dataclass(frozen=True, eq=False)
class RemoteBatch:
    """A batch whose images are in files that the executors read.

    Attributes:
        epoch: The epoch of the batch, from 0.
        step: The place of the batch in its epoch, from 0.
        wait: The seconds that training has waited for it.
        folder: The folder of its files.
        images: A handle of the list of its micro-batches' matrices.
        y: The classes of its images, from 1, of shape (n, 1), or (n, 3) if they are mixed; 0 in rows without
            an image.
    """

    epoch: int
    step: int
    wait: float
    folder: str
    images: JavaObject
    y: np.ndarray

    def __len__(self) -> int:
        """Gives the number of images."""
        return int((self.y[:, 0] > 0).sum())


@dataclass(eq=False)
class _Pending:
    samples: BatchSamples
    folder: str
    tasks: list[MicroBatch]
    written: Future[list[Written]]


class RemoteImages(Iterator[RemoteBatch]):
    """The batches of a data set, which the executors of a Spark cluster read.

    Use it in a `with` statement, or call `close`.

    Args:
        engine: The engine, which has the cluster.
        dataset: The data set, which the executors must be able to read.
        batches: The samples of each batch, in order.
        micro_batch: The number of images of a task; a batch is filled up with zeros to a multiple of it.
        mixing: How the images of a batch are mixed; by default they are not.
        seed: The seed of the mixing.
        replace: Whether the next good image takes the place of one that cannot be read.
        prefetch: The number of batches that `read_ahead` reads.
        on_error: The function that is told of each image that cannot be read; by default it raises an error.
        name: A name of the images, for Spark's web pages.
    """

    def __init__(
        self,
        engine: Engine,
        dataset: Dataset,
        batches: Iterator[BatchSamples],
        micro_batch: int,
        *,
        mixing: Mixing | None = None,
        seed: int = 0,
        replace: bool = True,
        prefetch: int = 1,
        on_error: OnError = raise_error,
        name: str = "images",
    ) -> None:
        self._engine, self._spark = engine, engine.spark
        self._dataset, self._batches, self._micro_batch = dataset, batches, micro_batch
        self._prefetch, self._on_error, self._name = prefetch, on_error, name
        self._known = self._spark.context.broadcast(dataset)
        self._write = partial(write_micro_batch, self._known, micro_batch, replace, mixing or Mixing(), seed)
        self._jobs = ThreadPoolExecutor(1, thread_name_prefix="sysds-resnet-spark")
        self._pending: deque[_Pending] = deque()

    def __enter__(self) -> RemoteImages:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Gives up the batches that are read ahead."""
        for pending in self._pending:
            pending.written.cancel()
        self._jobs.shutdown()
        self._pending.clear()  # their files are removed with the scratch folder
        with contextlib.suppress(Py4JError, OSError):  # the driver may be gone
            self._known.destroy()

    def __next__(self) -> RemoteBatch:
        """Waits until the executors have read the next batch.

        Raises:
            UserError: If `on_error` raises it, or the tasks fail.
        """
        began = time.perf_counter()
        if not self._pending and not self._submit():
            raise StopIteration
        with self._engine.errors():
            written = self._pending[0].written.result()
        pending = self._pending.popleft()
        for part in written:
            for index, reason in part.errors:
                self._on_error(self._dataset, index, reason)
        values = self._dataset.channels * math.prod(self._dataset.image_size)
        places = [(task.path, self._micro_batch, values) for task in pending.tasks]
        return RemoteBatch(
            pending.samples.epoch,
            pending.samples.step,
            time.perf_counter() - began,
            pending.folder,
            self._engine.make_list([self._engine.matrices.open(*place) for place in places]),
            np.concatenate([part.y for part in written]),
        )

    def read_ahead(self) -> None:
        """Starts reading the next `prefetch` batches in the background, as far as that has not begun.

        Executors that read do not compute meanwhile, so call this when they have nothing to compute.
        """
        while len(self._pending) < self._prefetch and self._submit():
            pass

    def _submit(self) -> bool:
        """Starts reading one more batch; gives False if there is none."""
        samples = next(self._batches, None)
        if samples is None:
            return False
        folder = f"{self._spark.scratch}/{self._name.split()[0]}-{samples.epoch}-{samples.step}"
        tasks = micro_batches(samples, self._micro_batch, folder)
        name = f"{self._name} of epoch {samples.epoch + 1}, batch {samples.step + 1}"
        self._pending.append(_Pending(samples, folder, tasks, self._jobs.submit(self._read, name, tasks)))
        return True

    def _read(self, name: str, tasks: list[MicroBatch]) -> list[Written]:
        self._spark.describe_jobs(name)
        return self._spark.context.parallelize(tasks, len(tasks)).map(self._write).collect()


def micro_batches(samples: BatchSamples, size: int, folder: str) -> list[MicroBatch]:
    """Divides a batch into tasks of `size` images, the last one of what is left, with files in a folder."""
    indices = np.concatenate([part.indices for part in samples.parts])
    epochs = np.concatenate([np.full(len(part.indices), part.epoch) for part in samples.parts])
    tasks = []
    for start in range(0, len(indices), size):
        # the first image of a batch is mixed with the last
        places = np.arange(start - 1, min(start + size, len(indices)))
        path = f"{folder}/images-{start // size}"
        tasks.append(MicroBatch(path, indices[places], epochs[places], samples.epoch, samples.step))
    return tasks


def write_micro_batch(
    dataset: Broadcast[Dataset], size: int, replace: bool, mixing: Mixing, seed: int, task: MicroBatch
) -> Written:
    """Reads the images of a micro-batch and writes them as a matrix for `to_pixels` (dml/training/data.dml).

    Args:
        dataset: The data set that they come from, as Spark broadcasts it.
        size: The number of rows of the matrix; rows without an image are 0.
        replace: Whether the next good image takes the place of one that cannot be read.
        mixing: How the images of the batch are mixed; mixing needs `replace`.
        seed: The seed of the mixing.
        task: The samples to read, and the file to write.

    Raises:
        UserError: If no image can be read with `replace`, or the file cannot be written.
    """
    known = dataset.value
    skip = 0 if mixing else 1  # without mixing, the sample before the first image is not needed
    indices, epochs = task.indices[skip:], task.epochs[skip:]
    bounds = [0, *np.flatnonzero(np.diff(epochs)) + 1, len(indices)]
    parts = [
        read(known, indices[start:stop], int(epochs[start]), replace) for start, stop in pairwise(bounds)
    ]
    images = np.concatenate([part.images for part in parts])
    labels = known.labels[np.concatenate([part.indices for part in parts])].astype(np.int64)
    if replace and len(images) < len(indices):
        reason = next(reason for part in parts for _, reason in part.errors)
        raise UserError(f"images: found none that can be read (the first: {reason}); check the data set")
    if mixing:
        images, labels = (part[1:] for part in mixing.apply(images, labels, seed, task.epoch, task.step))
    rows = images.transpose(0, 3, 1, 2).reshape(len(images), math.prod(images.shape[1:]))
    y = check_labels(labels, len(rows), known.num_classes)
    missing = ((0, size - len(rows)), (0, 0))
    write_shared(task.path, partial(write_matrix, array=np.pad(rows, missing)))
    return Written(np.pad(y, missing), [error for part in parts for error in part.errors])
