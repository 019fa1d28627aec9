"""Steps on a Spark cluster: its executors read the images of a batch and compute the batch's gradient.

Images do not pass through the driver. Tasks in Python read, augment and mix each micro-batch and write it as
a matrix into a folder that all share (`write_micro_batch`), a few steps ahead; dml/distributed.dml's tasks
read it there, and put the sums of their gradients into files beside it.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from py4j.java_gateway import JavaObject

from sysds_resnet.batch_order import BatchOrder, BatchSamples
from sysds_resnet.batches import OnError, raise_error
from sysds_resnet.engine.blocks import write_matrix
from sysds_resnet.errors import UserError
from sysds_resnet.images import Dataset
from sysds_resnet.images.mixing import Mixing
from sysds_resnet.model import BN_EPS, check_labels
from sysds_resnet.readers import read
from sysds_resnet.shared_files import write_shared
from sysds_resnet.state import Optimizer, State, StepMetrics
from sysds_resnet.train_settings import TrainSettings

if TYPE_CHECKING:
    from pyspark import Broadcast

_GRADIENTS = """
source("dml/distributed.dml") as distributed
metrics = distributed::gradients(images, labels, model, registry, geometry, mean, std, workers, batch_size,
                                 label_smoothing, frozen, eps, folder)
"""
_TOTAL = """
source("dml/distributed.dml") as distributed
gradients = distributed::total(parts, registry)
"""
_COLUMNS = 1000  # of flattened gradients, as in dml/distributed.dml


@dataclass(frozen=True, eq=False)
class MicroBatch:
    """What a task reads and writes.

    Attributes:
        path: Where its matrices go: PATH-images and PATH-labels.
        indices: Positions of its samples in the data set, of shape (k,), after the one that the first of
            them is mixed with.
        epochs: The epoch in which each is seen, of shape (k + 1,).
        epoch, step: Of the batch that it is part of.
    """

    path: str
    indices: np.ndarray
    epochs: np.ndarray
    epoch: int
    step: int


@dataclass(frozen=True, eq=False)
class RemoteBatch:
    """A batch whose images are with the executors.

    Attributes:
        epoch, step, wait: See `StepBatch`.
        size: Number of images.
        folder: Of its files.
        images, labels: Handles of lists of its micro-batches' matrices.
    """

    epoch: int
    step: int
    wait: float
    size: int
    folder: str
    images: JavaObject
    labels: JavaObject

    def __len__(self) -> int:
        """Number of images."""
        return self.size


@dataclass(eq=False)
class _Pending:
    samples: BatchSamples
    folder: str
    tasks: list[MicroBatch]
    errors: Future[list[list[tuple[int, str]]]]


class SparkSteps:
    """Steps whose gradients the executors of the engine's cluster compute.

    Use it in a `with` statement, or call `close`.

    Args:
        state: Which steps change; its engine has the cluster.
        dataset: Which the executors can read.
        batches: Where its samples come.
        micro_batch: Images of a task at a time; batches are multiples of it.
        mixing: Of the images of a batch.
        seed: Of mixing.
        prefetch: Batches that are read ahead.
        on_error: What to do with images that cannot be read.
    """

    def __init__(
        self,
        state: State,
        dataset: Dataset,
        batches: BatchOrder,
        micro_batch: int,
        mixing: Mixing,
        seed: int,
        prefetch: int,
        on_error: OnError,
    ) -> None:
        self._state, self._dataset, self._batches = state, dataset, batches
        self._micro_batch, self._mixing = micro_batch, mixing
        self._prefetch, self._on_error = prefetch, on_error
        self._network = state.model.network
        self._engine = self._network.engine
        self._spark = self._engine.spark
        self._known = self._spark.context.broadcast(dataset)
        self._write = partial(write_micro_batch, self._known, self._network.num_classes, mixing, seed)
        self._jobs = ThreadPoolExecutor(1, thread_name_prefix="sysds-resnet-spark")
        self._pending: deque[_Pending] = deque()
        self.steps_per_epoch = batches.steps_per_epoch
        self.measured: Mapping[str, Any] = {}
        self._checked = False

    def __enter__(self) -> SparkSteps:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Gives up what is read ahead."""
        for pending in self._pending:
            pending.errors.cancel()
        self._jobs.shutdown()
        self._pending.clear()

    def __next__(self) -> RemoteBatch:
        """Waits until the executors have read the next batch.

        Raises:
            UserError: What `on_error` raises.
        """
        began = time.perf_counter()
        while len(self._pending) <= self._prefetch and self._submit():
            pass
        if not self._pending:
            raise StopIteration
        pending = self._pending.popleft()
        with self._engine.errors():
            found = pending.errors.result()
        for index, reason in (error for errors in found for error in errors):
            self._on_error(self._dataset, index, reason)
        size, columns = self._micro_batch, 3 if self._mixing else 1
        values = self._network.channels * math.prod(self._dataset.image_size)
        return RemoteBatch(
            pending.samples.epoch,
            pending.samples.step,
            time.perf_counter() - began,
            size * len(pending.tasks),
            pending.folder,
            self._open([(f"{task.path}-images", size, values) for task in pending.tasks]),
            self._open([(f"{task.path}-labels", size, columns) for task in pending.tasks]),
        )

    def update(self, batch: RemoteBatch, optimizer: Optimizer) -> StepMetrics:
        """Does a step, as `State.update`."""
        began = time.perf_counter()
        network, model = self._network, self._state.model
        workers = min(self._spark.workers, batch.size // self._micro_batch)
        inputs = {
            "images": batch.images,
            "labels": batch.labels,
            "model": model.weights,
            "registry": network.registry,
            "geometry": network.geometry(self._micro_batch, *self._dataset.image_size, backward=True),
            "mean": model.mean,
            "std": model.std,
            "workers": workers,
            "batch_size": float(batch.size),
            "label_smoothing": optimizer.label_smoothing,
            "frozen": optimizer.frozen,
            "eps": BN_EPS,
            "folder": batch.folder,
        }
        self._spark.describe_jobs(f"step {self._state.progress.step + 1}: gradients")
        done = self._engine.run(_GRADIENTS, inputs, {"metrics": "matrix"}, distributed=True)
        if not self._checked:
            self._spark.check_executors()
            self._checked = True
        computed = time.perf_counter()
        values = sum(math.prod(tensor.shape) for tensor in network.tensors)
        height = values // _COLUMNS + 1
        parts = self._open([(f"{batch.folder}/{i}_null", height, _COLUMNS) for i in range(workers)])
        total = self._engine.run(
            _TOTAL, {"parts": parts, "registry": network.registry}, {"gradients": "list"}
        )
        rows = self._engine.to_numpy(done["metrics"])
        computing, writing = rows[:, 5:].T
        added = time.perf_counter()
        try:
            return self._state.apply(total["gradients"], rows[:, :4].sum(axis=0), optimizer)
        finally:
            self._spark.delete(batch.folder)
            self.measured = {
                "broadcast_s": computed - began - rows[:, 5:].sum(axis=1).max(),
                "compute_s": computing.max(),
                "straggler": computing.max() / np.median(computing),
                "gather_s": added - computed + writing.max(),
                "update_s": time.perf_counter() - added,
                "executors": self._spark.executors_alive(),
            }

    def _submit(self) -> bool:
        """Has one more batch read; False when there is none."""
        samples = next(self._batches, None)
        if samples is None:
            return False
        folder = f"{self._spark.scratch}/{samples.epoch}-{samples.step}"
        tasks = micro_batches(samples, self._micro_batch, folder)
        name = f"images of epoch {samples.epoch + 1}, batch {samples.step + 1}"
        self._pending.append(_Pending(samples, folder, tasks, self._jobs.submit(self._read, name, tasks)))
        return True

    def _read(self, name: str, tasks: list[MicroBatch]) -> list[list[tuple[int, str]]]:
        self._spark.describe_jobs(name)
        return self._spark.context.parallelize(tasks, len(tasks)).map(self._write).collect()

    def _open(self, places: list[tuple[str, int, int]]) -> JavaObject:
        open_matrix = self._engine.matrices.open
        return self._engine.make_list([open_matrix(path, rows, columns) for path, rows, columns in places])


@contextmanager
def spark_steps(
    settings: TrainSettings, state: State, train: Dataset, on_error: OnError = raise_error
) -> Iterator[SparkSteps]:
    """Steps on the cluster of the state's engine, from where its progress says; see `local_steps`."""
    batches = BatchOrder(
        len(train),
        lambda epoch: state.order(len(train), settings.seed, epoch),
        settings.batch_size,
        drop_last=True,
        repeats=settings.repeats,
        epochs=settings.epochs,
        start_epoch=state.progress.epoch,
        start_step=state.progress.step_in_epoch,
    )
    options = (settings.micro_batch, settings.mixing(), settings.seed, settings.prefetch, on_error)
    with SparkSteps(state, train, batches, *options) as steps:
        yield steps


def micro_batches(samples: BatchSamples, size: int, folder: str) -> list[MicroBatch]:
    """A batch as tasks of `size` images each, with files in a folder."""
    indices = np.concatenate([part.indices for part in samples.parts])
    epochs = np.concatenate([np.full(len(part.indices), part.epoch) for part in samples.parts])
    tasks = []
    for start in range(0, len(indices), size):
        places = np.arange(start - 1, start + size)  # the first image of a batch is mixed with the last
        path = f"{folder}/{start // size}"
        tasks.append(MicroBatch(path, indices[places], epochs[places], samples.epoch, samples.step))
    return tasks


def write_micro_batch(
    dataset: Broadcast[Dataset], num_classes: int, mixing: Mixing, seed: int, task: MicroBatch
) -> list[tuple[int, str]]:
    """Reads the images of a micro-batch and writes them as matrices.

    Images are written as dml/data.dml's `to_pixels` takes them, labels as dml/trainer.dml does.

    Args:
        dataset: Where they come from.
        num_classes: Number of classes.
        mixing: Of the batch.
        seed: Of mixing.
        task: What to read and where to write.

    Returns:
        Position and reason of each image that could not be read; the next good one takes its place.

    Raises:
        UserError: If none can be read, or the files cannot be written.
    """
    skip = 0 if mixing else 1  # nothing is mixed with the one before
    indices, epochs = task.indices[skip:], task.epochs[skip:]
    bounds = [0, *np.flatnonzero(np.diff(epochs)) + 1, len(indices)]
    parts = [
        read(dataset.value, indices[start:stop], int(epochs[start]), replace=True)
        for start, stop in pairwise(bounds)
    ]
    images = np.concatenate([part.images for part in parts])
    labels = dataset.value.labels[np.concatenate([part.indices for part in parts])].astype(np.int64)
    if len(images) < len(indices):
        raise UserError("images: found none that can be read: check the data set")
    if mixing:
        images, labels = (array[1:] for array in mixing.apply(images, labels, seed, task.epoch, task.step))
    rows = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    for name, array in (("images", rows), ("labels", check_labels(labels, len(rows), num_classes))):
        write_shared(f"{task.path}-{name}", partial(write_matrix, array=array))
    return [error for part in parts for error in part.errors]
