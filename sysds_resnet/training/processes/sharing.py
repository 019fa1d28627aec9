"""What the processes of a group share: batches, gradients, validation images, and the wish to stop."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any

import numpy as np
from py4j.java_gateway import JavaObject

from sysds_resnet.batches.readers import Readers
from sysds_resnet.batches.stream import OnError
from sysds_resnet.classes.labels import MixedLabels
from sysds_resnet.images import Dataset
from sysds_resnet.images.part import PartDataset
from sysds_resnet.network.arrays import SentImages
from sysds_resnet.report.events import StepMetrics
from sysds_resnet.scoring.evaluation import evaluate_totals, means_of
from sysds_resnet.training.gradients import compute_gradients
from sysds_resnet.training.loop import kept_weights
from sysds_resnet.training.optimizer import Optimizer
from sysds_resnet.training.processes.gradient_sums import GradientSums
from sysds_resnet.training.processes.group import Group
from sysds_resnet.training.state import State

NEWS = 2
"""How many numbers of its own `Exchange.with_news` adds to others."""


def own_part(n: int, group: Group) -> range:
    """Gives the part of n things that is for this process; the parts differ by one at most."""
    return range(group.rank * n // group.size, (group.rank + 1) * n // group.size)


def own_images(batch_size: int, micro_batch: int, group: Group) -> range:
    """Gives the places in each batch of the images for this process, which are whole micro-batches."""
    part = own_part(batch_size // micro_batch, group)
    return range(part.start * micro_batch, part.stop * micro_batch)


class Exchange:
    """Sums of numbers over the processes of a group, with which they also tell each other news.

    The news are the wish to stop, and images that could not be read. All processes come to know them in the
    same sum, so that all end after the same step. `sum` sums numbers by themselves; `with_news` and `heed`
    are for numbers that are summed together with others.

    Args:
        group: The group.
        sets: The data sets of the run, in the same order in each process.
        asked: A function that tells whether this process was asked to stop.
        on_error: A function of the first process that is told of all images that could not be read.

    Attributes:
        group: The group.
        asked: The function.
        stopping: Whether a process was asked to stop, as far as all know.
    """

    def __init__(
        self, group: Group, sets: Sequence[Dataset], asked: Callable[[], bool], on_error: OnError
    ) -> None:
        self.group, self.asked = group, asked
        self.stopping = False
        self._sets, self._on_error = sets, on_error
        self._unread: SimpleQueue[tuple[int, int, str]] = SimpleQueue()  # another thread may read images
        self._telling: list[tuple[int, int, str]] = []  # in the sum that goes on

    def note_unread(self, dataset: Dataset, index: int, reason: str) -> None:
        """Notes that an image cannot be read, for the next sum; the `OnError` of this process's streams."""
        if isinstance(dataset, PartDataset):
            dataset, index = dataset.whole, dataset.places[index]
        number = next(i for i, known in enumerate(self._sets) if known is dataset)
        self._unread.put((number, int(index), reason))

    def sum(self, numbers: Sequence[float] | np.ndarray) -> np.ndarray:
        """Sums numbers over the processes, float64 of shape (n,), and exchanges the news."""
        total = self.with_news(numbers)
        self.group.sum(total)
        return self.heed(total)

    def with_news(self, numbers: Sequence[float] | np.ndarray) -> np.ndarray:
        """Gives numbers of this process and its news, float64 of shape (n,), to be summed and then heeded."""
        self._telling = [self._unread.get() for _ in range(self._unread.qsize())]
        return np.array([*numbers, self.asked(), bool(self._telling)], float)

    def heed(self, total: np.ndarray) -> np.ndarray:
        """Heeds the news in the sum of what `with_news` gave in each process, and gives the other numbers."""
        *numbers, stops, unreads = total
        self.stopping = self.stopping or stops > 0
        if unreads:
            for text in self.group.gather(json.dumps(self._telling)):
                for number, index, reason in json.loads(text) if self.group.rank == 0 else ():
                    self._on_error(self._sets[number], index, reason)
        return np.array(numbers, float)


class SharedUpdate:
    """Training steps of which each process computes the gradients of its own images.

    The gradients of the last stage and the final layer, two thirds of all, are summed over the processes
    while a second thread has the engine compute the others.

    Args:
        state: The state of the run, which steps change in every process in the same way.
        exchange: The exchange between the processes.
        batch_size: The number of images in a whole batch.
        bf16_sums: Whether gradients travel between processes in bf16.

    Attributes:
        measured: The seconds of parts of the last step: "compute_s" of the gradients in the slowest process,
            "take_s" of taking them out of the engine, "sum_s" of what is left of the sums when they are
            computed, without the wait for the slowest process, "put_s" of putting them back, and "update_s".
            "straggler" is by how much the slowest process took longer than the median, and "slowest" its
            number.
    """

    def __init__(self, state: State, exchange: Exchange, batch_size: int, bf16_sums: bool = False) -> None:
        self._state, self._exchange, self._batch_size = state, exchange, batch_size
        self._bf16_sums = bf16_sums
        # the collective keeps to the thread that has joined it, so that the engine gets another one
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sysds-resnet-gradients")
        self._sums: GradientSums | None = None  # until there are gradients, which have the shapes
        self.measured: dict[str, Any] = {}

    def update(
        self, images: np.ndarray | SentImages, labels: np.ndarray | MixedLabels, optimizer: Optimizer
    ) -> StepMetrics:
        """Does one step with the images of this process; it is `State.update` of all processes together."""
        group, seconds = self._exchange.group, {}
        gradients, metrics, sums = self._gradients(images, labels, optimizer, seconds)
        times = np.zeros(group.size)
        times[group.rank] = seconds["compute_s"]
        with _timed(seconds, "take_s"):
            sums.take_lower(gradients)
        with _timed(seconds, "sum_s"):
            numbers = sums.sum_lower(self._exchange.with_news([*metrics, *times]))
        numbers = self._exchange.heed(numbers)
        metrics, times = numbers[:4], numbers[4:]
        seconds["sum_s"] = max(0.0, seconds["sum_s"] - (times.max() - times[group.rank]))
        with _timed(seconds, "put_s"):
            sums.put(gradients)
        with _timed(seconds, "update_s"):
            done = self._state.apply(gradients, metrics, optimizer)
        slowest = {"compute_s": times.max(), "straggler": times.max() / np.median(times)}
        self.measured.update(seconds | slowest | {"slowest": int(times.argmax())})
        return done

    def _gradients(
        self,
        images: np.ndarray | SentImages,
        labels: np.ndarray | MixedLabels,
        optimizer: Optimizer,
        seconds: dict[str, float],
    ) -> tuple[JavaObject, np.ndarray, GradientSums]:
        """Computes the gradients and metrics of this process, and sums the upper gradients meanwhile.

        In the first step, these are summed afterwards. What is summed is in the `GradientSums` that it gives.
        """
        model, sums = self._state.model, self._sums
        known: SimpleQueue[JavaObject | None] = SimpleQueue()

        def early(upper: JavaObject) -> None:
            if sums is not None:
                with _timed(seconds, "take_s"):
                    sums.take_upper(upper)
            known.put(upper)

        def compute() -> tuple[JavaObject, np.ndarray]:
            with _timed(seconds, "compute_s"):
                return compute_gradients(model, images, labels, optimizer, self._batch_size, early)

        with _timed(seconds, "sum_s"):
            computing = self._thread.submit(compute)
            computing.add_done_callback(lambda _: known.put(None))  # for one that fails
            upper = known.get()
            if upper is not None and sums is not None:
                sums.sum_upper()
            gradients, metrics = computing.result()
        seconds["sum_s"] = max(0.0, seconds["sum_s"] - seconds["compute_s"])
        seconds["compute_s"] -= seconds.get("take_s", 0)
        if sums is None:
            more = len(metrics) + self._exchange.group.size + NEWS
            group, bf16 = self._exchange.group, self._bf16_sums
            self._sums = sums = GradientSums(group, model.engine, gradients, upper, more, bf16)
            sums.take_upper(upper)
            sums.sum_upper()
        return gradients, metrics, sums


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Adds the seconds that a `with` block takes to those in a dict."""
    began = time.perf_counter()
    yield
    seconds[name] = seconds.get(name, 0) + time.perf_counter() - began


def evaluate_part(
    state: State, part: PartDataset, readers: Readers, exchange: Exchange, scored: Callable[[int], object]
) -> dict[str, float] | None:
    """Evaluates this process's part of the validation images, and gives the scores of all parts together.

    Args:
        state: The state of the run, whose kept weights are evaluated.
        part: The part of the images; it may be empty.
        readers: The readers of the part.
        exchange: The exchange between the processes.
        scored: A function that is told how many images of the part have been scored.

    Returns:
        The scores of `evaluate`, the same for each process; None if one was asked to stop.
    """
    totals = None
    if len(part):
        with kept_weights(state) as model:
            totals = evaluate_totals(model, part, readers, exchange.note_unread, exchange.asked, scored)
    totals = exchange.sum(np.zeros(4) if totals is None else totals)
    return None if exchange.stopping else means_of(totals)
