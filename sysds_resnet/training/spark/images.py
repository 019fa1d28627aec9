"""Images that the executors of a Spark cluster read, for what the cluster's engine computes with them.

They do not pass through the driver: tasks in Python read, augment and mix each micro-batch and write it as a
matrix into a folder that all share (`write_micro_batch`), between two steps.
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
    """What a task reads and writes.

    Attributes:
        path: Where its images go, as a matrix.
        indices: Positions of its samples in the data set, of shape (k + 1,): the first is the one that the
            first of them is mixed with.
        epochs: The epoch in which each is seen, of shape (k + 1,).
        epoch, step: Of the batch that it is part of.
    """

    path: str
    indices: np.ndarray
    epochs: np.ndarray
    epoch: int
    step: int


@dataclass(frozen=True, eq=False)
class Written:
    """What a task has written.

    Attributes:
        y: The engine's class numbers of its images, as `check_labels` gives them; 0 where there is none.
        errors: Position and reason of each image that could not be read.
    """

    y: np.ndarray
    errors: list[tuple[int, str]]


@dataclass(frozen=True, eq=False)
class RemoteBatch:
    """A batch whose images are with the executors.

    Attributes:
        epoch, step, wait: See `StepBatch`.
        folder: Of its files.
        images: Handle of a list of its micro-batches' matrices.
        y: The engine's class numbers of all of them, of shape (n, 1) or (n, 3).
    """

    epoch: int
    step: int
    wait: float
    folder: str
    images: JavaObject
    y: np.ndarray

    def __len__(self) -> int:
        """Number of images."""
        return int((self.y[:, 0] > 0).sum())


@dataclass(eq=False)
class _Pending:
    samples: BatchSamples
    folder: str
    tasks: list[MicroBatch]
    written: Future[list[Written]]


class RemoteImages(Iterator[RemoteBatch]):
    """The batches of a data set, read by executors.

    Use it in a `with` statement, or call `close`.

    Args:
        engine: Which has the cluster.
        dataset: Which the executors can read.
        batches: Where its samples come.
        micro_batch: Images of a task; what a batch lacks to a multiple of it is filled up with zeros.
        mixing: Of the images of a batch.
        seed: Of mixing.
        replace: Whether another image takes the place of one that cannot be read.
        prefetch: Batches that `read_ahead` reads.
        on_error: What to do with images that cannot be read.
        name: Of the images, for Spark's web pages.
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
        """Gives up what is read ahead."""
        for pending in self._pending:
            pending.written.cancel()
        self._jobs.shutdown()
        self._pending.clear()  # what they have written goes with the scratch folder
        with contextlib.suppress(Py4JError, OSError):  # of a driver that is gone
            self._known.destroy()

    def __next__(self) -> RemoteBatch:
        """Waits until the executors have read the next batch.

        Raises:
            UserError: What `on_error` raises.
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
        """Has the batches that come next read meanwhile, if they are not yet.

        What executors read they do in the place of what they compute: call it when they have nothing to do.
        """
        while len(self._pending) < self._prefetch and self._submit():
            pass

    def _submit(self) -> bool:
        """Has one more batch read; False when there is none."""
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
    """A batch as tasks of `size` images each, the last one of what is left, with files in a folder."""
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
        dataset: Where they come from.
        size: Rows of the matrix; those that are left are 0.
        replace: Whether the next good image takes the place of one that cannot be read.
        mixing: Of the batch; with `replace` only.
        seed: Of mixing.
        task: What to read and where to write.

    Raises:
        UserError: If none can be read and there should be, or the file cannot be written.
    """
    known = dataset.value
    skip = 0 if mixing else 1  # nothing is mixed with the one before
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
