"""Training steps and evaluations on a Spark cluster, by dml/cluster/distributed.dml."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import numpy as np
from py4j.java_gateway import JavaObject

from sysds_resnet.batches.order import BatchOrder, sequential_order
from sysds_resnet.batches.stream import OnError, raise_error
from sysds_resnet.engine.program import Program
from sysds_resnet.errors import UserError
from sysds_resnet.images import Dataset
from sysds_resnet.network.arrays import weigh
from sysds_resnet.network.inference import BN_EPS
from sysds_resnet.report.events import StepMetrics
from sysds_resnet.training.optimizer import Optimizer
from sysds_resnet.training.settings import TrainSettings
from sysds_resnet.training.spark.images import RemoteBatch, RemoteImages
from sysds_resnet.training.state import State
from sysds_resnet.training.steps import training_order

_GRADIENTS = Program(
    """
source("dml/cluster/distributed.dml") as distributed
source("dml/training/gradients.dml") as trainer
settings = trainer::settings(mean, std, label_smoothing, frozen, eps)
metrics = distributed::gradients(images, y, model, registry, plan, settings, workers, micro_batch, slices,
                                 folder)
""",
    {"metrics": "matrix"},
    "cluster",
)
_SUMS = Program(
    """
source("dml/cluster/sums.dml") as sums
done = sums::add_groups(parts, slices, fan_in, folder)
""",
    {"done": "double"},
    "cluster",
)
_TOTAL = """
source("dml/cluster/sums.dml") as sums
gradients = sums::total(parts, slices, registry, frozen)
"""
_FAN_IN = """
source("dml/cluster/sums.dml") as sums
fan_in = sums::fan_in()
"""
_FILES = """
source("dml/cluster/sums.dml") as sums
source("dml/cluster/wire.dml") as wire
slices = sums::slices(workers, fan_in)
[rows, cols] = wire::shape(as.matrix(registry["tensors"]), frozen)
"""
_EVALUATE = Program(
    """
source("dml/cluster/distributed.dml") as distributed
source("dml/training/gradients.dml") as trainer
settings = trainer::settings(mean, std, 0.0, 0, eps)
metrics = distributed::evaluate(images, y, model, registry, plan, settings, workers, micro_batch)
""",
    {"metrics": "matrix"},
    "cluster",
)
EVALUATED_AT_A_TIME = 8  # micro-batches of each worker, for which parameters are sent once


class SparkSteps:
    """Training steps whose gradients the executors of the engine's cluster compute.

    Args:
        state: The state of the run, which steps change; its engine has the cluster.
        images: The images of the steps, in full batches.
        dataset: The data set that the images come from.
        micro_batch: The number of images that a task computes at a time.
        steps_per_epoch: The number of batches in an epoch.
        fan_in: The number of gradients that become one at a level of the tree of sums; by default that of
            dml/cluster/sums.dml.

    Attributes:
        steps_per_epoch, fan_in: The arguments.
        measured: How long the parts of the last step took, in seconds, and how many executors there were.
    """

    def __init__(
        self,
        state: State,
        images: RemoteImages,
        dataset: Dataset,
        micro_batch: int,
        steps_per_epoch: int,
        fan_in: int | None = None,
    ) -> None:
        self._state, self._images = state, images
        self._dataset, self._micro_batch = dataset, micro_batch
        self._engine = state.model.engine
        self._spark = self._engine.spark
        self.steps_per_epoch = steps_per_epoch
        self.fan_in = fan_in or self._engine.run(_FAN_IN, {}, {"fan_in": "int"})["fan_in"]
        self.measured: Mapping[str, Any] = {}
        self._checked = False
        self._layouts: dict[tuple[int, int], dict[str, int]] = {}

    def __next__(self) -> RemoteBatch:
        """Waits until the executors have read the next batch."""
        return next(self._images)

    def update(self, batch: RemoteBatch, optimizer: Optimizer) -> StepMetrics:
        """Does a training step on a batch: gradients on the cluster, then the update in the driver."""
        began = time.perf_counter()
        inputs = _inputs(self._state, batch, self._dataset, self._micro_batch) | {
            "y": weigh(batch.y, optimizer.class_weights),
            "label_smoothing": optimizer.label_smoothing,
            "frozen": optimizer.frozen,
            "folder": batch.folder,
        }
        files = self._files(inputs["workers"], optimizer.frozen)
        inputs["slices"] = files["slices"]
        self._spark.describe_jobs(f"step {self._state.progress.step + 1}: gradients")
        done = self._engine.run(_GRADIENTS, inputs)
        if not self._checked:
            self._spark.check_executors()
            self._checked = True
        self._images.read_ahead()
        computed = time.perf_counter()
        total = self._add(batch.folder, inputs["workers"], files, optimizer.frozen)
        rows = self._engine.to_numpy(done["metrics"])
        computing, writing = rows[:, 5:].T
        added = time.perf_counter()
        try:
            return self._state.apply(total, rows[:, :4].sum(axis=0), optimizer)
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

    def _files(self, workers: int, frozen: int) -> dict[str, int]:
        """Gives the number of files of a worker's gradients, and their rows in all and columns."""
        if (workers, frozen) not in self._layouts:
            inputs = {
                "workers": workers,
                "fan_in": self.fan_in,
                "registry": self._state.model.network.registry,
                "frozen": frozen,
            }
            outputs = {"slices": "int", "rows": "int", "cols": "int"}
            self._layouts[workers, frozen] = self._engine.run(_FILES, inputs, outputs)
        return self._layouts[workers, frozen]

    def _add(self, folder: str, count: int, files: Mapping[str, int], frozen: int) -> JavaObject:
        """Adds the gradients of `count` workers, in files as `_files` says; gives a handle of the sums."""
        engine, registry, slices = self._engine, self._state.model.network.registry, files["slices"]
        ends = [s * files["rows"] // slices for s in range(slices + 1)]
        heights = [end - start for start, end in pairwise(ends)]

        def parts() -> JavaObject:
            matrices = [
                engine.matrices.open(f"{folder}/{i}_null", heights[i % slices], files["cols"])
                for i in range(count * slices)
            ]
            return engine.make_list(matrices)

        while count > self.fan_in // 2:
            self._spark.describe_jobs(f"step {self._state.progress.step + 1}: sums of {count} gradients")
            inputs = {"parts": parts(), "slices": slices, "fan_in": self.fan_in, "folder": f"{folder}/sums"}
            count = int(engine.run(_SUMS, inputs)["done"])
            folder = inputs["folder"]
        inputs = {"parts": parts(), "slices": slices, "registry": registry, "frozen": frozen}
        return engine.run(_TOTAL, inputs, {"gradients": "list"})["gradients"]


@contextmanager
def spark_steps(
    settings: TrainSettings,
    state: State,
    train: Dataset,
    on_error: OnError = raise_error,
    fan_in: int | None = None,
) -> Iterator[SparkSteps]:
    """Gives the training steps on the cluster of the state's engine, from where the state's progress says."""
    batches = BatchOrder(
        len(train),
        training_order(settings, state, train),
        settings.batch_size,
        drop_last=True,
        repeats=settings.repeats,
        epochs=settings.epochs,
        start_epoch=state.progress.epoch,
        start_step=state.progress.step_in_epoch,
    )
    with RemoteImages(
        state.model.engine,
        train,
        batches,
        settings.micro_batch,
        mixing=settings.mixing(),
        seed=settings.seed,
        prefetch=settings.prefetch,
        on_error=on_error,
    ) as images:
        yield SparkSteps(state, images, train, settings.micro_batch, batches.steps_per_epoch, fan_in)


def spark_evaluate(
    settings: TrainSettings,
    state: State,
    val: Dataset | None,
    on_error: OnError = raise_error,
    stopped: Callable[[], bool] = lambda: False,
) -> dict[str, float] | None:
    """Evaluates the weights that the run keeps, on the executors of the state's engine.

    It gives the scores by name: none without a data set, and None if it was stopped.
    """
    if val is None:
        return {}
    engine, size = state.model.engine, settings.micro_batch
    spark = engine.spark
    at_a_time = min(EVALUATED_AT_A_TIME * spark.workers * size, len(val))
    batches = BatchOrder(len(val), sequential_order(len(val)), at_a_time, drop_last=False, epochs=1)
    total = np.zeros(4)
    with RemoteImages(
        engine, val, batches, size, replace=False, on_error=on_error, name="validation images"
    ) as images:
        for batch in images:
            spark.describe_jobs(f"evaluation after step {state.progress.step}, part {batch.step + 1}")
            inputs = _inputs(state, batch, val, size) | {"model": state.averaged}
            done = engine.run(_EVALUATE, inputs)
            images.read_ahead()
            total += engine.to_numpy(done["metrics"])[:, :4].sum(axis=0)
            spark.delete(batch.folder)
            if stopped():
                return None
    if not total[3]:
        raise UserError("images: found none that can be read, expected some; check the data set")
    loss, top1, top5 = (total[:3] / total[3]).tolist()
    return {"images": int(total[3]), "loss": loss, "top1": top1, "top5": top5}


def _inputs(state: State, batch: RemoteBatch, dataset: Dataset, micro_batch: int) -> dict[str, Any]:
    """Gives the inputs that the programs of steps and of evaluations have in common."""
    model, network = state.model, state.model.network
    return {
        "images": batch.images,
        "y": batch.y,
        "model": model.weights,
        "registry": network.registry,
        "plan": network.plan(micro_batch, *dataset.image_size, backward=True),
        "mean": model.mean,
        "std": model.std,
        "workers": min(model.engine.spark.workers, len(batch.y) // micro_batch),
        "micro_batch": micro_batch,
        "eps": BN_EPS,
    }
