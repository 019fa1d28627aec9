"""The interface for images in arrays: a network that is trained, scored, saved and loaded from Python."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from sysds_resnet.engine import Engine
from sysds_resnet.errors import UserError
from sysds_resnet.network.inference import softmax
from sysds_resnet.network.model import Model
from sysds_resnet.report.events import EpochEvent
from sysds_resnet.training.fitting import fit_arrays

if TYPE_CHECKING:
    import pandas as pd


class ResNet(Model):
    """A ResNet classifier (v1.5, torchvision's names and semantics) on SystemDS, for images in arrays.

    Images are arrays of shape (N, H, W, C), uint8 or floating point in 0..255; `mean` and `std` bring
    them to the scale that the weights were trained on. Labels count from 0. Arguments are those of `Model`.

    Any thread may use a model, several at a time: each gets the scores of its own images, with the weights
    that the model had when it asked. One thread at a time may train it.
    """

    def predict_proba(self, images: np.ndarray, batch_size: int | None = None) -> np.ndarray:
        """Computes the class probabilities, of shape (N, num_classes)."""
        return softmax(self.logits(images, batch_size))

    def predict(self, images: np.ndarray, batch_size: int | None = None) -> np.ndarray:
        """Gives the most probable class of each image, from 0, of shape (N,)."""
        return self.logits(images, batch_size).argmax(axis=1)

    def fit(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        validation: tuple[np.ndarray, np.ndarray] | None = None,
        *,
        on_epoch: Callable[[EpochEvent], None] | None = None,
        **settings: Any,
    ) -> pd.DataFrame:
        """Trains the model.

        Args:
            images: The training images, of shape (N, H, W, C), uint8 or floating point in 0..255.
            labels: The labels of the images, as `evaluate` takes them.
            validation: The images and labels to evaluate on after each epoch.
            on_epoch: A function that is called after each epoch, with what the table will say of it.
            **settings: Settings of `sysds_resnet.train.TrainSettings`: epochs, batch_size, optimizer, ...
                class_weights may also be numbers of shape (num_classes,), by which the loss of each class's
                images is multiplied; the loss of a batch is still divided by its number of images.

        Returns:
            A table with a row for each epoch, and the columns of metrics.jsonl.

        Raises:
            UserError: If an argument does not fit, or another thread trains the model.
        """
        if not self._fitting.acquire(blocking=False):
            raise UserError("fit: found another thread training this model, expected one; wait for its end")
        try:
            return fit_arrays(self, images, labels, validation, on_epoch, settings)
        finally:
            self._fitting.release()

    def _set_up(
        self,
        engine: Engine | None,
        sizes: tuple[int, int, int],
        mean: np.ndarray | None,
        std: np.ndarray | None,
        classes: Sequence[str] | None,
    ) -> None:
        super()._set_up(engine, sizes, mean, std, classes)
        self._fitting = Lock()  # held by the thread that is in `fit`
