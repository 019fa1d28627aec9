"""The scoring of images by a network whose norms are folded into its convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import numpy as np
from py4j.java_gateway import JavaObject

from sysds_resnet.engine import Engine
from sysds_resnet.engine.device import Result
from sysds_resnet.engine.program import Program
from sysds_resnet.engine.values import Value
from sysds_resnet.network.arrays import SentImages
from sysds_resnet.network.registry import Network

BN_EPS = 1e-5  # as in torchvision

_FOLD = Program(
    """
source("dml/network/folding.dml") as folding
folded = folding::fold(model, eps)
""",
    {"folded": "list"},
    "device",
)
_TAKE_PIXELS = """
if (packed) {
  X = data::unpack(X)
}
pixels = data::normalize(X, mean, std)
"""
TAKE_BATCH = f"""
source("dml/training/data.dml") as data
source("dml/training/gradients.dml") as trainer
y = data::check_labels(y, num_classes)
{_TAKE_PIXELS}"""  # the beginning of the programs that one worker runs
_FEATURES = Program(
    f"""
source("dml/training/data.dml") as data
source("dml/network/inference.dml") as inference
{_TAKE_PIXELS}
features = inference::features(pixels, folded, plan)
""",
    {"features": "matrix"},
    "device",
)
_EVALUATE = Program(
    f"""{TAKE_BATCH}
[metrics, logits] = trainer::evaluate(pixels, y, folded, plan)
""",
    {"metrics": "matrix", "logits": "matrix"},
    "device",
)
_EVALUATE_BY_WORKERS = Program(
    """
source("dml/training/data.dml") as data
source("dml/training/gradients.dml") as trainer
y = data::check_labels(y, num_classes)
[metrics, parts] = trainer::parallel_evaluate(X, y, size, packed, mean, std, folded, plan)
""",
    {"metrics": "matrix", "parts": "list"},
    "workers",
)
_JOIN = Program(
    """
logits = rbind(parts)
""",
    {"logits": "matrix"},
)


class Inference:
    """The scoring of images with weights of a network; the folded form of the last weights is kept.

    Args:
        network: The network that the weights belong to.
    """

    def __init__(self, network: Network) -> None:
        self._network = network
        self._kept: tuple[JavaObject, JavaObject] | None = None  # weights, and what they are folded

    def forget(self, keep: Sequence[JavaObject]) -> None:
        """Frees the folded weights that are kept.

        Args:
            keep: The weights that must stay in memory; they share the final layer with the folded ones.
        """
        kept, self._kept = self._kept, None
        if kept is not None:
            self._network.engine.free([kept[1]], keep)

    def fold(self, weights: JavaObject) -> JavaObject:
        """Gives the handle of the weights with the norms folded into the convolutions."""
        with self._network.engine.alone():
            if self._kept is None or self._kept[0] is not weights:
                self.forget(keep=[weights])
                inputs = {"model": weights, "eps": BN_EPS}
                folded = self._network.engine.run(_FOLD, inputs)["folded"]
                self._kept = weights, folded
            return self._kept[1]

    def evaluate(
        self, weights: JavaObject, images: SentImages, y: np.ndarray, mean: np.ndarray, std: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Computes the scores of images, and how well they fit the labels.

        Args:
            weights: The handle of a list of tensors in registry order. The scores are those of these weights,
                even if another thread trains the model meanwhile.
            images: The images to score.
            y: The class numbers of the images, as `check_labels` gives them.
            mean, std: The mean and standard deviation of each channel, of shape (1, C).

        Returns:
            An array [summed loss, top-1 hits, top-5 hits, images] of shape (4,), and the logits, of shape
            (N, num_classes).
        """
        network, engine = self._network, self._network.engine
        workers, size, parts = engine.workers, images.size, iter(images.parts)
        plan, folded = network.plan(size, *images.shape[1:3]), self.fold(weights)
        total, logits = np.zeros(4), []
        for start in range(0, len(images), size * workers):
            inputs = {
                "packed": images.packed,
                "y": y[start : start + size * workers],
                "num_classes": network.num_classes,
                "size": size,
                "mean": mean,
                "std": std,
                "folded": folded,
                "plan": plan,
            }
            results = _evaluate(engine, list(islice(parts, workers)), inputs)
            total += engine.to_numpy(results["metrics"])[0]
            logits.append(engine.to_numpy(results["logits"]))
        return total, np.concatenate(logits)

    def features(
        self, weights: JavaObject, images: SentImages, mean: np.ndarray, std: np.ndarray
    ) -> np.ndarray:
        """Computes the features of images, of shape (N, F), one part of the images after the other.

        The arguments are those of `evaluate`.
        """
        network, engine = self._network, self._network.engine
        plan, folded = network.plan(images.size, *images.shape[1:3]), self.fold(weights)
        inputs = {"packed": images.packed, "mean": mean, "std": std, "folded": folded, "plan": plan}
        results = (engine.run(_FEATURES, {"X": part, **inputs}) for part in images.parts)
        return np.concatenate([engine.to_numpy(found["features"]) for found in results])[: len(images)]


def _evaluate(engine: Engine, parts: list[JavaObject], inputs: dict[str, Value]) -> dict[str, Result]:
    """Gives the metrics and the logits of images in parts, which the engine's workers compute at a time."""
    if engine.workers == 1:
        return engine.run(_EVALUATE, {"X": parts[0], **inputs})
    images = engine.make_list(parts)
    results = engine.run(_EVALUATE_BY_WORKERS, {"X": images, **inputs})
    results |= engine.run(_JOIN, {"parts": results["parts"]})
    engine.free([images, results.pop("parts")], keep=[])
    return results


def softmax(logits: np.ndarray) -> np.ndarray:
    """Computes probabilities of shape (N, K) from logits of the same shape."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def default_batch(engine: Engine, height: int, width: int) -> int:
    """Gives the batch size for inference: what an eighth of the heap holds, at most 64 images a worker."""
    # 150 doubles a pixel: the largest activations (64 channels at half the size, after the stem) times
    # patches and copies
    image_bytes = height * width * 8 * 150
    return int(np.clip(engine.heap // 8 // image_bytes, 1, 64 * engine.workers))


def log_softmax(scores: np.ndarray) -> np.ndarray:
    """Computes the logarithms of probabilities, of shape (N, K), from logits of the same shape."""
    shifted = scores - scores.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
