"""The model: a ResNet with weights, which scores images, and which reads and writes its weights."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from py4j.java_gateway import JavaObject

from sysds_resnet.engine import Engine
from sysds_resnet.errors import UserError
from sysds_resnet.network.arrays import SentImages, check_images, check_labels, lay_out
from sysds_resnet.network.inference import Inference, default_batch
from sysds_resnet.network.names import infer_architecture
from sysds_resnet.network.preprocessing import check_description, check_preprocessing, of_a_model
from sysds_resnet.network.registry import arrays_of, network_on
from sysds_resnet.network.weights.files import describe, write_weights
from sysds_resnet.network.weights.forms import load_weights
from sysds_resnet.system.ahead import ahead
from sysds_resnet.system.checks import flag, whole
from sysds_resnet.system.similar_names import refuse_unknown

if TYPE_CHECKING:
    from typing_extensions import Self

_MOST = 2**31 - 1  # the most rows or columns of a matrix in the engine, and its largest seed
_INIT = """
source("dml/network/initialization.dml") as initial
model = initial::init(registry, seed, zero_init_residual)
"""


class Model:
    """A ResNet v1.5 with weights, on SystemDS, with torchvision's names and semantics.

    The subclass `ResNet` can also be trained.

    Images are arrays of shape (N, H, W, C), uint8 or floating point in 0..255; `mean` and `std` bring
    them to the scale that the weights were trained on. Labels count from 0.

    Several threads may use a model at the same time: each gets the scores of its own images, computed with
    the weights that the model had when the thread asked. Batches are computed one after the other, each with
    all of the engine's threads. A model works only in the process that made it, as its engine does.

    Args:
        depth: The depth of the network: 18, 34, 50, 101 or 152.
        num_classes: The number of classes.
        channels: The number of channels of the images.
        seed: The seed of the initial weights.
        zero_init_residual: Whether the last norm scale of each residual block starts at 0.
        engine: The engine to run on; by default a new one in double precision.
        mean, std: The mean and standard deviation of each channel, in 0..255, of shape (C,); by default
            ImageNet's for three channels, and 0 and 1 for another number.
        classes: The names of the classes; by default none.

    Attributes:
        network: The network without its weights: its registry of tensors, on its engine.

    Raises:
        UserError: If an argument is not as described here.
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
        classes: Sequence[str] | None = None,
    ) -> None:
        depth, channels = whole("depth", depth, most=_MOST), whole("channels", channels, 1, _MOST)
        num_classes, seed = whole("num_classes", num_classes, most=_MOST), whole("seed", seed, 0, _MOST)
        zero_init_residual = flag("zero_init_residual", zero_init_residual)
        self._set_up(engine, (depth, channels, num_classes), mean, std, classes)
        registry = self.network.registry
        inputs = {"registry": registry, "seed": seed, "zero_init_residual": zero_init_residual}
        self.weights = self.engine.run(_INIT, inputs, {"model": "list"})["model"]

    @classmethod
    def load(cls, path: str | Path, engine: Engine | None = None, key: str | None = None) -> Self:
        """Loads a model from a file or a folder of weights.

        `load_weights` (network/weights/forms.py) lists the forms that are read, and what `key` chooses. Mean,
        std and class names are taken over where the form has them. What users should know of how the weights
        were read is issued as a warning.

        Raises:
            UserError: If the file cannot be read or holds no ResNet.
        """
        weights, metadata, notes = load_weights(path, engine, key)
        for text in notes:
            warnings.warn(text, stacklevel=2)
        return cls.from_state_dict(weights, engine, str(path), **of_a_model(metadata))

    @classmethod
    def from_state_dict(
        cls,
        weights: Mapping[str, np.ndarray],
        engine: Engine | None = None,
        source: str = "weights",
        mean: np.ndarray | None = None,
        std: np.ndarray | None = None,
        classes: Sequence[str] | None = None,
        **unknown: Any,
    ) -> Self:
        """Makes a model from a state dict with torchvision's names, from which it infers the network.

        The weights are arrays or PyTorch tensors; `source` is what errors call them. The other arguments are
        those of the class.
        """
        refuse_unknown(unknown, ("weights", "engine", "source", "mean", "std", "classes"), "from_state_dict")
        weights = arrays_of(weights, source)
        found = infer_architecture(weights, source)
        model = cls.__new__(cls)
        model._set_up(engine, (found.depth, found.channels, found.num_classes), mean, std, classes)
        model.load_state_dict(weights, source)
        return model

    def _set_up(
        self,
        engine: Engine | None,
        sizes: tuple[int, int, int],
        mean: np.ndarray | None,
        std: np.ndarray | None,
        classes: Sequence[str] | None,
    ) -> None:
        """Sets up all but the weights; `sizes` are depth, channels and number of classes."""
        preprocessing = check_preprocessing(mean, std, classes, *sizes[1:])
        self.network = network_on(engine, *sizes)
        self._preprocessing = preprocessing
        self._inference = Inference(self.network)
        self._weights: JavaObject | None = None

    @property
    def weights(self) -> JavaObject:
        """The handle of the weights in the engine."""
        return self._weights

    @weights.setter
    def weights(self, weights: JavaObject) -> None:
        self.engine.check_own("weights", weights)
        with self.engine.alone_on_gpu():
            self._inference.forget(keep=[w for w in (self._weights, weights) if w is not None])
            self._weights = weights

    @property
    def mean(self) -> np.ndarray:
        """The mean of each channel, in 0..255, of shape (1, C); `set_preprocessing` changes it."""
        return self._preprocessing[0]

    @property
    def std(self) -> np.ndarray:
        """The standard deviation of each channel, in 0..255, of shape (1, C).

        `set_preprocessing` changes it.
        """
        return self._preprocessing[1]

    @property
    def classes(self) -> list[str] | None:
        """The names of the classes, or None; `set_preprocessing` changes them."""
        return self._preprocessing[2]

    @property
    def engine(self) -> Engine:
        """The engine that the model runs on."""
        return self.network.engine

    def state_dict(self) -> dict[str, np.ndarray]:
        """Gives the parameters and running statistics by torchvision's names, in float64."""
        return self.network.from_engine(self.weights)

    def load_state_dict(self, weights: Mapping[str, np.ndarray], source: str = "weights") -> None:
        """Replaces the weights by those of a state dict; nothing changes if they do not fit."""
        before = self._weights
        self.weights = self.network.to_engine(weights, source)
        if before is not None:
            self.engine.free([before], keep=[self.weights])

    def save(self, path: str | Path, **metadata: Any) -> None:
        """Writes the weights as safetensors in float64, with mean, std, class names and `metadata`.

        Raises:
            UserError: If the file cannot be written, or `load` would refuse it.
        """
        if not isinstance(path, (str, Path)):
            raise UserError(f"path: found {path!r:.80}, expected one such as 'w.safetensors'; give one")
        header = describe(self.description(**metadata))
        write_weights(path, self.state_dict(), metadata=header)

    def description(self, **metadata: Any) -> dict[str, Any]:
        """Gives what `save` writes beside the weights: mean, std, class names and `metadata`."""
        own = {"mean": self.mean[0], "std": self.std[0], "classes": self.classes}
        return check_description({**own, **metadata}, self.network.channels, self.network.num_classes)

    def send(self, images: np.ndarray, batch_size: int | None = None) -> SentImages:
        """Copies images into the engine for a later `logits` or `evaluate`, even while the engine computes.

        Args:
            images: The images, of shape (N, H, W, C).
            batch_size: The number of images to compute at a time; by default the heap decides.

        Raises:
            UserError: If they have other channels than the network or another scale, or hold NaN or infinity.
        """
        laid_out = self._lay_out(images, batch_size)
        return replace(laid_out, parts=[self.engine.send(part) for part in laid_out.parts])

    def logits(self, images: np.ndarray | SentImages, batch_size: int | None = None) -> np.ndarray:
        """Computes the logits, of shape (N, num_classes), `batch_size` images at a time."""
        return self._evaluate(images, None, batch_size)[1]

    def features(self, images: np.ndarray | SentImages, batch_size: int | None = None) -> np.ndarray:
        """Computes the features of images, of which the final layer makes the logits.

        They are the means over the pixels of the last activations, of shape (N, F). F is 512 at depths 18 and
        34, and 2048 at the others. The arguments are those of `logits`.
        """
        sent = self._take(images, batch_size)
        with self.engine.alone_on_gpu():
            return self._inference.features(self.weights, sent, self.mean, self.std)

    def evaluate(
        self, images: np.ndarray | SentImages, labels: np.ndarray, batch_size: int | None = None
    ) -> dict[str, float]:
        """Computes the mean cross-entropy "loss", and the accuracies "top1" and "top5" from 0 to 1.

        Args:
            images: The images to score, of shape (N, H, W, C).
            labels: The classes from 0, of shape (N,) or (N, 1), or one-hot rows of shape (N, num_classes).
            batch_size: The number of images to compute at a time; by default the heap decides.
        """
        if labels is None:
            raise UserError("labels: found none, expected one for each image; give them, or call predict")
        loss, top1, top5, n = self._evaluate(images, labels, batch_size)[0]
        return {"loss": loss / n, "top1": top1 / n, "top5": top5 / n}

    def set_preprocessing(
        self, mean: np.ndarray | None, std: np.ndarray | None, classes: Sequence[str] | None
    ) -> None:
        """Sets the mean, std and class names, which mean the same as for the constructor."""
        sizes = self.network.channels, self.network.num_classes
        self._preprocessing = check_preprocessing(mean, std, classes, *sizes)

    def _lay_out(self, images: np.ndarray, batch_size: int | None) -> SentImages:
        """Lays images out as matrices, each with the images that one worker computes at a time."""
        images = check_images(images, self.network.channels)
        if batch_size is None:
            limit = default_batch(self.engine, *images.shape[1:3])
        else:
            limit = whole("batch_size", batch_size, 1)
        size = -(-min(limit, len(images)) // self.engine.workers)
        found = lay_out(images, size, self.engine)
        found.check(self.engine, self.network.channels, self.std)
        return found

    def _take(self, images: np.ndarray | SentImages, batch_size: int | None) -> SentImages:
        """Gives images on their way into the engine, and checks those that were sent before."""
        if not isinstance(images, SentImages):
            images = self._lay_out(images, batch_size)
            if self.engine.gpu:
                images = replace(images, parts=ahead(map(self.engine.send, images.parts)))
        images.check(self.engine, self.network.channels, self.std)  # another model may have sent them
        return images

    def _evaluate(
        self, images: np.ndarray | SentImages, labels: np.ndarray | None, batch_size: int | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Gives the metrics and logits of `Inference.evaluate`; without labels the metrics mean nothing."""
        images = self._take(images, batch_size)
        n = len(images)
        y = check_labels(np.zeros(n, int) if labels is None else labels, n, self.network.num_classes)
        with self.engine.alone_on_gpu():  # or a thread that trains could free the weights' GPU memory
            return self._inference.evaluate(self.weights, images, y, self.mean, self.std)
