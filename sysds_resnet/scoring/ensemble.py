"""What evaluation and prediction share: settings, networks and their scores of images."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field
from tqdm import tqdm

from sysds_resnet.batches.readers import Readers
from sysds_resnet.batches.stream import OnError
from sysds_resnet.classes.comparison import compare_class_names, describe_difference
from sysds_resnet.engine import Engine
from sysds_resnet.engine.gpu.cuda import DEVICE, GPUS, choose_gpus, chosen_device
from sysds_resnet.engine.jvm.memory import parse_size
from sysds_resnet.engine.jvm.multiply import Blas, Precision
from sysds_resnet.errors import UserError
from sysds_resnet.images import Dataset
from sysds_resnet.images.settings import ReadingSettings
from sysds_resnet.images.views import Tta, View, choose_views, seen_in
from sysds_resnet.network.arrays import SentImages
from sysds_resnet.network.model import ResNet, default_batch
from sysds_resnet.network.preprocessing import of_a_model
from sysds_resnet.network.weights.forms import load_weights
from sysds_resnet.system.console import note
from sysds_resnet.training.loop import read_all

Scale = Annotated[float, Field(ge=0.25, le=4)]


class ScoringSettings(ReadingSettings):
    """Settings of commands that run trained networks."""

    weights: list[str] = Field(
        min_length=1,
        description="One or more of: .safetensors, .pth, a run folder, a Hugging Face folder, ... Of "
        "several, the probabilities are averaged.",
    )
    image_size: int | None = Field(
        None, ge=32, description="Side of the images in pixels; by default what the weights say, or 224."
    )
    resize_size: int | None = Field(
        None,
        ge=32,
        description="Shorter side before the crop; by default as the weights say, or 256.",
    )
    tta: Tta = Field(
        "none",
        description="Views of each image whose probabilities are averaged: the centre; it and its mirror "
        "image; corners and centre; these and their mirror images.",
    )
    scales: list[Scale] = Field(
        [1.0], min_length=1, description="Factors of resize_size; all views are taken at each of them."
    )
    precision: Precision = Field("single", description="Of matrix multiplies.")
    device: str = Field("cpu", description=DEVICE)
    gpus: int | None = Field(None, ge=1, description=GPUS)
    blas: Blas = Field("auto", description="The fastest, or openblas, or none for plain Java.")
    heap: str | None = Field(None, description="JVM heap, such as 12g; by default half of the memory.")

    def engine_options(self) -> dict[str, Any]:
        """Arguments for the engine that these settings ask for."""
        heap = self.heap and parse_size(self.heap)
        gpus = choose_gpus(*chosen_device(self.device, self.gpus))
        return {"precision": self.precision, "heap": heap, "blas": self.blas, "gpus": gpus}

    def views(self) -> list[View]:
        """The views of each image that these settings ask for."""
        return choose_views(self.tta, self.scales)


class Ensemble:
    """Networks on one engine whose probabilities are averaged; usually one.

    Args:
        models: With equally many classes, of the same names where they have names.
        names: What errors call them.

    Attributes:
        models: As given.
        num_classes: Number of classes.
        classes: Their names, or None if no network has any.

    Raises:
        UserError: If the networks' classes differ.
    """

    def __init__(self, models: Sequence[ResNet], names: Sequence[str]) -> None:
        self.models = list(models)
        self.num_classes = models[0].network.num_classes
        for model, name in zip(models, names, strict=True):
            if model.network.num_classes != self.num_classes:
                raise UserError(
                    f"{name}: found {model.network.num_classes} classes, expected {self.num_classes} as in "
                    f"{names[0]}; give networks for the same classes"
                )
        named = [(model.classes, name) for model, name in zip(models, names, strict=True) if model.classes]
        self.classes = named[0][0] if named else None
        for classes, name in named[1:]:
            if difference := compare_class_names(classes, self.classes):
                text = describe_difference(difference, name, named[0][1])
                raise UserError(f"{text}; give networks for the same classes")

    @property
    def engine(self) -> Engine:
        """The engine that the networks run on."""
        return self.models[0].engine

    def send(self, images: np.ndarray, views: int = 1) -> SentImages:
        """Copies images into the engine, once for all networks, while it may be at work; see `scores`."""
        parts, size = self._parts(images, views)
        return self.models[0].send(parts, size)

    def scores(self, images: np.ndarray | SentImages, views: int = 1) -> np.ndarray:
        """Scores whose softmax are the probabilities, averaged over networks and views.

        Those of one network and view are its logits; others are logarithms of mean probabilities.

        Args:
            images: Of shape (N, V*H, W, C): V views of each image, one below the other; or what `send` made
                of them.
            views: V.

        Returns:
            float64 of shape (N, num_classes).
        """
        parts, size = (images, None) if isinstance(images, SentImages) else self._parts(images, views)
        found = [model.logits(parts, batch_size=size) for model in self.models]
        if len(found) == views == 1:
            return found[0]
        n = len(parts) // views
        logs = np.stack([log_softmax(logits).reshape(n, views, -1) for logits in found], axis=1)
        return np.logaddexp.reduce(logs, axis=(1, 2)) - math.log(len(found) * views)

    def _parts(self, images: np.ndarray, views: int) -> tuple[np.ndarray, int]:
        """Views as images, and how many at a time: as even as can be, since the last part is filled up."""
        n, height, width, channels = images.shape
        parts = images.reshape(n * views, height // views, width, channels)
        limit = default_batch(self.engine, *parts.shape[1:3])
        return parts, math.ceil(len(parts) / math.ceil(len(parts) / limit))


def log_softmax(scores: np.ndarray) -> np.ndarray:
    """Logarithms of probabilities, of shape (N, K), from scores of the same shape."""
    shifted = scores - scores.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def load_ensemble(settings: ScoringSettings, engine: Engine) -> tuple[Ensemble, dict[str, int | None]]:
    """The networks of the settings, and the images' sizes: the settings' or what stands beside the weights.

    Raises:
        UserError: If weights cannot be read or do not fit together.
    """
    models, sizes = [], {}
    for name in settings.weights:
        state_dict, metadata, notes = load_weights(Path(name), engine)
        for text in notes:
            note(text)
        models.append(ResNet.from_state_dict(state_dict, engine, name, **of_a_model(metadata)))
        image_size = settings.image_size or _side(metadata, name)
        resize_size = settings.resize_size
        if resize_size is None and settings.image_size is None:
            resize_size = metadata.get("resize_size")
        sizes[name] = {"image_size": image_size, "resize_size": resize_size}
    ensemble = Ensemble(models, settings.weights)
    first = settings.weights[0]
    for name, found in sizes.items():
        if found != sizes[first]:
            raise UserError(
                f"{name}: found images of {_size(found)}, expected {_size(sizes[first])} as in {first}; add "
                "--image-size, and --resize-size where it is not the usual one"
            )
    return ensemble, sizes[first]


def _side(metadata: dict[str, Any], source: str) -> int | None:
    """Side of the images that weights are for, if they tell."""
    height, width = metadata.get("image_size") or (None, None)
    if height != width:
        raise UserError(
            f"{source}: found images of {height} x {width} pixels, expected square ones; add --image-size"
        )
    return height


def _size(sizes: dict[str, int | None]) -> str:
    text = f"{sizes['image_size']} pixels" if sizes["image_size"] else "an unknown size"
    return text + (f" cropped from {sizes['resize_size']}" if sizes["resize_size"] else "")


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
