"""ResNet for people who have arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from py4j.java_gateway import JavaObject

from sysds_resnet.ahead import ahead
from sysds_resnet.arrays import SentImages, check_images, check_labels, lay_out
from sysds_resnet.engine import Engine
from sysds_resnet.images import IMAGENET_MEAN, IMAGENET_STD
from sysds_resnet.network import Network
from sysds_resnet.weight_names import infer_architecture
from sysds_resnet.weights import describe, read_metadata, read_weights, write_weights

BN_EPS = 1e-5  # torchvision's

_INIT = """
source("dml/resnet.dml") as resnet
model = resnet::init(registry, seed, zero_init_residual)
"""
_FOLD = """
source("dml/resnet.dml") as resnet
folded = resnet::fold(model, registry, eps)
"""
_EVALUATE = """
source("dml/data.dml") as data
source("dml/trainer.dml") as trainer
y = data::check_labels(y, num_classes)
if (packed) {
  X = data::unpack(X)
}
pixels = data::normalize(X, mean, std)
[metrics, logits] = trainer::evaluate(pixels, y, folded, registry, geometry)
"""

_PARALLEL_EVALUATE = """
source("dml/data.dml") as data
source("dml/trainer.dml") as trainer
y = data::check_labels(y, num_classes)
[metrics, parts] = trainer::parallel_evaluate(X, y, size, packed, mean, std, folded, registry, geometry)
"""


class ResNet:
    """A ResNet classifier (v1.5, torchvision's names and semantics) on SystemDS.

    Images are arrays of shape (N, H, W, C), uint8 or floating point in 0..255; `mean` and `std` bring
    them to the scale that the weights were trained on. Labels count from 0.

    Args:
        depth: 18, 34, 50, 101 or 152.
        num_classes: Number of classes.
        channels: Channels of the images.
        seed: Of the initial weights.
        zero_init_residual: Start the last norm scale of each residual block at 0.
        engine: Where to run; by default an engine of its own in double precision.
        mean, std: Of each channel, in 0..255, of shape (C,); by default ImageNet's.
        classes: Names of the classes, for `predict`; by default none.

    Attributes:
        network: The network's registry and engine.
    """

    def __init__(
        self,
        depth: int = 50,
        num_classes: int = 1000,
        channels: int = 3,
        seed: int = 42,
        zero_init_residual: bool = False,
        engine: Engine | None = None,
        mean: np.ndarray | None = None,
        std: np.ndarray | None = None,
        classes: list[str] | None = None,
    ) -> None:
        self.network = Network(engine or Engine(), depth, channels, num_classes)
        self.set_preprocessing(mean, std, classes)
        inputs = {"registry": self.network.registry, "seed": seed, "zero_init_residual": zero_init_residual}
        self.weights = self.engine.run(_INIT, inputs, {"model": "list"})["model"]

    @classmethod
    def load(cls, path: str | Path, engine: Engine | None = None) -> ResNet:
        """A model from a weights file in any form that `sysds_resnet.weights.read_weights` knows.

        Files that `save` wrote carry their mean, std and class names.

        Raises:
            UserError: If the file cannot be read or holds no ResNet.
        """
        weights = read_weights(path)
        return cls.from_state_dict(weights, engine, str(path), **read_metadata(path))

    @classmethod
    def from_state_dict(
        cls,
        weights: Mapping[str, np.ndarray],
        engine: Engine | None = None,
        source: str = "weights",
        mean: np.ndarray | None = None,
        std: np.ndarray | None = None,
        classes: list[str] | None = None,
        **_: Any,
    ) -> ResNet:
        """A model with the weights of a state dict with torchvision's names, whose network it infers."""
        found = infer_architecture(weights, source)
        model = cls.__new__(cls)
        model.network = Network(engine or Engine(), found.depth, found.channels, found.num_classes)
        model.set_preprocessing(mean, std, classes)
        model.load_state_dict(weights, source)
        return model

    @property
    def weights(self) -> JavaObject:
        """Handle of the weights in the engine."""
        return self._weights

    @weights.setter
    def weights(self, weights: JavaObject) -> None:
        if getattr(self, "_folded", None) is not None:
            # the final layer's weights are in both
            self.engine.free([self._folded], keep=[self._weights, weights])
        self._weights = weights
        self._folded: JavaObject | None = None  # the same for inference, once it is asked for

    @property
    def engine(self) -> Engine:
        """The engine that the model runs on."""
        return self.network.engine

    def state_dict(self) -> dict[str, np.ndarray]:
        """Parameters and running statistics by torchvision's names, in float64."""
        return self.network.from_engine(self.weights)

    def load_state_dict(self, weights: Mapping[str, np.ndarray], source: str = "weights") -> None:
        """Takes over the weights of a state dict; nothing changes if it does not fit."""
        before = getattr(self, "_weights", None)
        self.weights = self.network.to_engine(weights, source)
        if before is not None:
            self.engine.free([before], keep=[self.weights])

    def save(self, path: str | Path, **metadata: Any) -> None:
        """Writes the weights as safetensors in float64, with mean, std, class names and `metadata`."""
        write_weights(path, self.state_dict(), metadata=describe(self.description(**metadata)))

    def description(self, **metadata: Any) -> dict[str, Any]:
        """What stands beside the weights in a file: mean, std, class names and `metadata`."""
        return {
            "mean": self.mean.reshape(-1).tolist(),
            "std": self.std.reshape(-1).tolist(),
            "classes": self.classes,
            **metadata,
        }

    def send(self, images: np.ndarray, batch_size: int | None = None) -> SentImages:
        """Copies images (N, H, W, C) into the engine, for `logits` or `evaluate`, while it may be at work.

        Args:
            images: To send.
            batch_size: Images at a time.

        Raises:
            UserError: If they are not of the network's channels, or hold NaN.
        """
        size, parts, packed = self._parts(images, batch_size)
        return SentImages(images.shape, size, [self.engine.send(part) for part in parts], packed)

    def logits(self, images: np.ndarray | SentImages, batch_size: int | None = None) -> np.ndarray:
        """Class scores of shape (N, num_classes); `batch_size` images at a time."""
        return self._evaluate(images, np.zeros(len(images), dtype=int), batch_size)[1]

    def predict_proba(self, images: np.ndarray, batch_size: int | None = None) -> np.ndarray:
        """Class probabilities of shape (N, num_classes)."""
        return softmax(self.logits(images, batch_size))

    def predict(self, images: np.ndarray, batch_size: int | None = None) -> np.ndarray:
        """The most probable class of each image, of shape (N,)."""
        return self.logits(images, batch_size).argmax(axis=1)

    def evaluate(
        self, images: np.ndarray | SentImages, labels: np.ndarray, batch_size: int | None = None
    ) -> dict[str, float]:
        """Mean cross-entropy "loss" and the shares "top1" and "top5" of images (N, H, W, C)."""
        loss, top1, top5, n = self._evaluate(images, labels, batch_size)[0]
        return {"loss": loss / n, "top1": top1 / n, "top5": top5 / n}

    def fit(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        validation: tuple[np.ndarray, np.ndarray] | None = None,
        **settings: Any,
    ) -> pd.DataFrame:
        """Trains the model.

        Args:
            images: Of shape (N, H, W, C), uint8.
            labels: Classes from 0, of shape (N,).
            validation: Images and labels to evaluate on after each epoch.
            **settings: Of `sysds_resnet.train.TrainSettings`: epochs, batch_size, optimizer, base_lr, ...

        Returns:
            A row for each epoch with the columns of metrics.jsonl.
        """
        from sysds_resnet.train import fit_arrays  # train imports this module

        return fit_arrays(self, images, labels, validation, settings)

    def set_preprocessing(
        self, mean: np.ndarray | None, std: np.ndarray | None, classes: list[str] | None
    ) -> None:
        """Sets what images are normalized with (see the class) and the names of the classes."""
        channels = self.network.channels
        if mean is None and channels == len(IMAGENET_MEAN):
            mean, std = IMAGENET_MEAN, IMAGENET_STD
        self.mean = np.zeros((1, channels)) if mean is None else np.reshape(mean, (1, -1)).astype(float)
        self.std = np.ones((1, channels)) if std is None else np.reshape(std, (1, -1)).astype(float)
        self.classes = list(classes) if classes else None

    def _parts(self, images: np.ndarray, batch_size: int | None) -> tuple[int, Iterator[np.ndarray], bool]:
        """Images that a worker computes with, of `batch_size` at a time, and `lay_out` of so many."""
        check_images(images, self.network.channels)
        limit = batch_size or default_batch(self.engine, *images.shape[1:3])
        size = -(-min(limit, len(images)) // self.engine.workers)
        return size, *lay_out(images, size, self.engine.channel_major)

    def _evaluate(
        self, images: np.ndarray | SentImages, labels: np.ndarray, batch_size: int | None
    ) -> tuple[np.ndarray, np.ndarray]:
        if isinstance(images, SentImages):
            size, parts, packed = images.size, iter(images.parts), images.packed
        else:
            size, parts, packed = self._parts(images, batch_size)
            if self.engine.gpu:
                parts = ahead(map(self.engine.send, parts))
        classes = check_labels(labels, len(images), self.network.num_classes)
        workers = self.engine.workers
        geometry = self.network.geometry(size, *images.shape[1:3])
        if self._folded is None:
            inputs = {"model": self.weights, "registry": self.network.registry, "eps": BN_EPS}
            self._folded = self.engine.run(_FOLD, inputs, {"folded": "list"}, on_gpu=True)["folded"]
        total, logits = np.zeros(4), []
        for start in range(0, len(images), size * workers):
            pixels = next(parts)
            if workers > 1:
                pixels = self.engine.make_list([pixels, *islice(parts, workers - 1)])
            inputs = {
                "X": pixels,
                "packed": packed,
                "y": classes[start : start + size * workers],
                "num_classes": self.network.num_classes,
                "mean": self.mean,
                "std": self.std,
                "folded": self._folded,
                "registry": self.network.registry,
                "geometry": geometry,
            }
            results = self.engine.run(
                _PARALLEL_EVALUATE if workers > 1 else _EVALUATE,
                inputs | ({"size": size} if workers > 1 else {}),
                {"metrics": "matrix"} | ({"parts": "list"} if workers > 1 else {"logits": "matrix"}),
                parallel=workers > 1,
                on_gpu=True,
            )
            total += self.engine.to_numpy(results["metrics"])[0]
            if workers > 1:
                scores = self.engine.list_items(results["parts"])
                self.engine.free([pixels, results["parts"]], keep=[])
            else:
                scores = [results["logits"]]
            logits += map(self.engine.to_numpy, scores)
        return total, np.concatenate(logits)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities of shape (N, K) from scores of the same shape."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def default_batch(engine: Engine, height: int, width: int) -> int:
    """Images at a time for inference: as many as take an eighth of the heap, at most 64 for each worker."""
    # the largest activations (after the stem, 64 channels at half the size) times patches and copies
    image_bytes = height * width * 8 * 150
    return int(np.clip(engine.heap // 8 // image_bytes, 1, 64 * engine.workers))
