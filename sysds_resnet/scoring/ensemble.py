"""Ensembles of networks, usually of one, and their scores of images, for evaluation and prediction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sysds_resnet.classes.comparison import compare_class_names, describe_difference
from sysds_resnet.engine import Engine
from sysds_resnet.errors import UserError
from sysds_resnet.network.arrays import SentImages
from sysds_resnet.network.inference import default_batch, log_softmax
from sysds_resnet.network.model import Model
from sysds_resnet.network.preprocessing import of_a_model
from sysds_resnet.network.weights.forms import load_weights
from sysds_resnet.scoring.settings import ScoringSettings
from sysds_resnet.system.console import note


class Ensemble:
    """The networks on one engine whose probabilities are averaged; usually a single one.

    Args:
        models: The networks, with equally many classes, of the same names where they have names.
        names: The names of the networks in error messages.

    Attributes:
        models: The networks.
        num_classes: The number of classes.
        classes: The names of the classes, or None if no network has any.

    Raises:
        UserError: If the networks' classes differ.
    """

    def __init__(self, models: Sequence[Model], names: Sequence[str]) -> None:
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
        """Copies images, in the form that `scores` takes, into the engine, which may be computing meanwhile.

        The copy serves all networks.
        """
        parts, size = self._parts(images, views)
        return self.models[0].send(parts, size)

    def scores(self, images: np.ndarray | SentImages, views: int = 1) -> np.ndarray:
        """Computes scores whose softmax is the probabilities, averaged over networks and views.

        For a single network and view they are its logits, otherwise the logarithms of mean probabilities.

        Args:
            images: The images, of shape (N, V*H, W, C), with the V views of each one below the other; or what
                `send` made of them.
            views: The number V of views.

        Returns:
            The scores, float64 of shape (N, num_classes).
        """
        parts, size = (images, None) if isinstance(images, SentImages) else self._parts(images, views)
        found = [model.logits(parts, batch_size=size) for model in self.models]
        if len(found) == views == 1:
            return found[0]
        n = len(parts) // views
        logs = np.stack([log_softmax(logits).reshape(n, views, -1) for logits in found], axis=1)
        return np.logaddexp.reduce(logs, axis=(1, 2)) - math.log(len(found) * views)

    def _parts(self, images: np.ndarray, views: int) -> tuple[np.ndarray, int]:
        """Gives the views as images of their own, and how many of them to compute at a time.

        The parts are as even as can be, since the last one is filled up.
        """
        n, height, width, channels = images.shape
        parts = images.reshape(n * views, height // views, width, channels)
        limit = default_batch(self.engine, *parts.shape[1:3])
        return parts, math.ceil(len(parts) / math.ceil(len(parts) / limit))


def load_ensemble(settings: ScoringSettings, engine: Engine) -> tuple[Ensemble, dict[str, int | None]]:
    """Loads the networks of the settings, and gives the images' sizes by the settings or the weights' files.

    Raises:
        UserError: If weights cannot be read or do not fit together.
    """
    models, sizes = [], {}
    for name in settings.weights:
        state_dict, metadata, notes = load_weights(Path(name), engine)
        for text in notes:
            note(text)
        models.append(Model.from_state_dict(state_dict, engine, name, **of_a_model(metadata)))
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
    """Gives the side in pixels of the images that weights are for, if their metadata says so."""
    height, width = metadata.get("image_size") or (None, None)
    if height != width:
        raise UserError(
            f"{source}: found images of {height} x {width} pixels, expected square ones; add --image-size"
        )
    return height


def _size(sizes: dict[str, int | None]) -> str:
    text = f"{sizes['image_size']} pixels" if sizes["image_size"] else "an unknown size"
    return text + (f" cropped from {sizes['resize_size']}" if sizes["resize_size"] else "")
