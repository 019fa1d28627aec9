"""Whole data sets scored by networks: loss and hits of one, and scores of several that are averaged."""

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
) -> dict[str, float] | None:
    """Mean "loss" and shares "top1" and "top5" over the "images" of a data set that can be read.

    Asks `stopped` after each batch, and gives None if it is true.

    Raises:
        UserError: What `on_error` raises, or none can be read.
    """
    total, n = np.zeros(3), 0
    for batch in read_all(model.engine, dataset, readers, on_error, model.send):
        scores = model.evaluate(batch.images, batch.labels)
        total += len(batch.labels) * np.array([scores["loss"], scores["top1"], scores["top5"]])
        n += len(batch.labels)
        if stopped():
            return None
    if not n:
        raise UserError("images: found none that can be read, expected some; check the data set")
    loss, top1, top5 = (total / n).tolist()
    return {"images": n, "loss": loss, "top1": top1, "top5": top5}


def read_all(
    engine: Engine, dataset: Dataset, readers: Readers, on_error: OnError, send: Callable[[np.ndarray], Any]
) -> Iterator[Batch]:
    """A whole data set in its order, in batches that fit the engine's heap, none of them empty.

    Args:
        engine: Of the networks that score it.
        dataset: To read.
        readers: Who read it.
        on_error: What to do with images that cannot be read.
        send: What the images of a batch become, where there is a GPU while the batch before is scored. On the
            CPU, which has something to do, and where memory is the heap's, they stay arrays.
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
    """Scores of m images.

    Attributes:
        indices: Positions in the data set, int64 of shape (m,).
        labels: 0-based, int64 of shape (m,); -1 where there is none.
        scores: float64 of shape (m, num_classes), as of `Ensemble.scores`.
    """

    indices: np.ndarray
    labels: np.ndarray
    scores: np.ndarray


def score(
    ensemble: Ensemble, dataset: Dataset, settings: ScoringSettings, on_error: OnError
) -> Iterator[ScoredBatch]:
    """Scores of a data set, batch by batch in its order, with a progress bar if there is a terminal.

    Raises:
        UserError: What `on_error` raises, or no image can be read.
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
