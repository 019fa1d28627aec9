"""The scoring of whole data sets: loss and hits of one network, or averaged scores of several."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from tqdm import tqdm

from sysds_resnet.batches.order import sequential_order
from sysds_resnet.batches.readers import Readers
from sysds_resnet.batches.stream import Batch, BatchStream, OnError, raise_error
from sysds_resnet.engine import Engine
from sysds_resnet.errors import UserError
from sysds_resnet.images import Dataset
from sysds_resnet.images.views import seen_in
from sysds_resnet.network.inference import default_batch
from sysds_resnet.network.model import Model
from sysds_resnet.scoring.ensemble import Ensemble
from sysds_resnet.scoring.settings import ScoringSettings
from sysds_resnet.system.ahead import ahead


def evaluate(
    model: Model,
    dataset: Dataset,
    readers: Readers,
    on_error: OnError = raise_error,
    stopped: Callable[[], bool] = lambda: False,
    scored: Callable[[int], object] = lambda _: None,
) -> dict[str, float] | None:
    """Computes the mean "loss" and the shares "top1" and "top5" over the images that can be read.

    It also gives their number, "images".

    Args:
        model: The network.
        dataset: The images, with labels.
        readers: The readers of the images.
        on_error: A function that is told of images that cannot be read.
        stopped: A function that is asked after each batch; None is given if it is true.
        scored: A function that is told after each batch how many images have been scored.

    Raises:
        UserError: If `on_error` raises it, or no image can be read.
    """
    totals = evaluate_totals(model, dataset, readers, on_error, stopped, scored)
    return None if totals is None else means_of(totals)


def evaluate_totals(
    model: Model,
    dataset: Dataset,
    readers: Readers,
    on_error: OnError = raise_error,
    stopped: Callable[[], bool] = lambda: False,
    scored: Callable[[int], object] = lambda _: None,
) -> np.ndarray | None:
    """Computes what `means_of` makes the scores of: [summed loss, top-1 hits, top-5 hits, images].

    The arguments are those of `evaluate`, which says when None is given.
    """
    totals = np.zeros(4)
    for batch in read_all(model.engine, dataset, readers, on_error, model.send):
        scores = model.evaluate(batch.images, batch.labels)
        totals += len(batch.labels) * np.array([scores["loss"], scores["top1"], scores["top5"], 1])
        scored(int(totals[3]))
        if stopped():
            return None
    return totals


def means_of(totals: np.ndarray) -> dict[str, float]:
    """Gives the scores of `evaluate` from the numbers of `evaluate_totals`.

    Raises:
        UserError: If there was no image.
    """
    n = int(totals[3])
    if not n:
        raise UserError("images: found none that can be read, expected some; check the data set")
    loss, top1, top5 = (totals[:3] / n).tolist()
    return {"images": n, "loss": loss, "top1": top1, "top5": top5}


def read_all(
    engine: Engine, dataset: Dataset, readers: Readers, on_error: OnError, send: Callable[[np.ndarray], Any]
) -> Iterator[Batch]:
    """Reads a whole data set in its order, in batches that fit the engine's heap, none of them empty.

    Args:
        engine: The engine of the networks that score it.
        dataset: The data set to read.
        readers: The readers of its images.
        on_error: A function that is told of images that cannot be read.
        send: A function that copies the images of a batch to a GPU, while the batch before is scored. On the
            CPU, which is busy then and whose memory is the heap's, images stay arrays.
    """
    size = min(default_batch(engine, *dataset.image_size), len(dataset))
    order = sequential_order(len(dataset))
    with BatchStream(dataset, order, size, readers, drop_last=False, epochs=1, on_error=on_error) as stream:
        batches = (batch for batch in stream if len(batch.labels))
        if engine.gpu:
            batches = ahead(replace(batch, images=send(batch.images)) for batch in batches)
        yield from batches


@dataclass(frozen=True, eq=False)
class ScoredBatch:
    """The scores of m images.

    Attributes:
        indices: The positions of the images in the data set, int64 of shape (m,).
        labels: The labels from 0, int64 of shape (m,); -1 for images without one.
        scores: The scores, float64 of shape (m, num_classes), as `Ensemble.scores` gives them.
    """

    indices: np.ndarray
    labels: np.ndarray
    scores: np.ndarray


def score(
    ensemble: Ensemble, dataset: Dataset, settings: ScoringSettings, on_error: OnError
) -> Iterator[ScoredBatch]:
    """Scores a data set, batch by batch in its order, with a progress bar if there is a terminal.

    Raises:
        UserError: If `on_error` raises it, or no image can be read.
    """
    views = settings.views()
    seen = seen_in(dataset, views)
    n = 0
    with (
        Readers([seen], settings.workers) as readers,
        tqdm(total=len(dataset), unit="image", disable=None) as bar,
    ):
        send = partial(ensemble.send, views=len(views))
        for batch in read_all(ensemble.engine, seen, readers, on_error, send):
            n += len(batch.labels)
            yield ScoredBatch(batch.indices, batch.labels, ensemble.scores(batch.images, len(views)))
            bar.update(len(batch.labels))
    if not n:
        raise UserError("images: found none that can be read, expected some; check the files")
