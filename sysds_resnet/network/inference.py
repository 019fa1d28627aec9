"""Scoring images with a network whose norms are folded into its convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import numpy as np
from py4j.java_gateway import JavaObject

from sysds_resnet.engine import Engine
from sysds_resnet.engine.program import Program
from sysds_resnet.network.arrays import SentImages
from sysds_resnet.network.registry import Network

BN_EPS = 1e-5  # torchvision's

_FOLD = Program(
    """
source("dml/network/folding.dml") as folding
folded = folding::fold(model, eps)
""",
    {"folded": "list"},
    "device",
)
TAKE_BATCH = """
source("dml/training/data.dml") as data
source("dml/training/gradients.dml") as trainer
y = data::check_labels(y, num_classes)
if (packed) {
  X = data::unpack(X)
}
pixels = data::normalize(X, mean, std)
"""  # how programs of one worker begin
_EVALUATE = Program(
    f"""{TAKE_BATCH}
[metrics, logits] = trainer::evaluate(pixels, y, folded, plan)
""",
    {"metrics": "matrix", "logits": "matrix"},
    "device",
)
_PARALLEL_EVALUATE = Program(
    """
source("dml/training/data.dml") as data
source("dml/training/gradients.dml") as trainer
y = data::check_labels(y, num_classes)
[metrics, parts] = trainer::parallel_evaluate(X, y, size, packed, mean, std, folded, plan)
""",
    {"metrics": "matrix", "parts": "list"},
    "workers",
)


class Inference:
    """Scores images with weights of a network; those that it was asked for last are kept folded.

    Args:
        network: Of the weights.
    """

    def __init__(self, network: Network) -> None:
        self._network = network
        self._kept: tuple[JavaObject, JavaObject] | None = None  # weights, and what they are folded

    def forget(self, keep: Sequence[JavaObject]) -> None:
        """Lets go of what it keeps.

        Args:
            keep: Weights that stay; the final layer's are in both.
        """
        kept, self._kept = self._kept, None
        if kept is not None:
            self._network.engine.free([kept[1]], keep)

    def fold(self, weights: JavaObject) -> JavaObject:
        """Handle of weights with the norms folded into the convolutions."""
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
        """Scores them.

        Args:
            weights: Handle of a list in registry order. The result is of these, whatever other threads train.
            images: To score.
            y: Their class numbers as of `check_labels`.
            mean, std: What they are normalized with, of shape (1, C).

        Returns:
            [summed loss, top-1 hits, top-5 hits, images], of shape (4,), and scores (N, num_classes).
        """
        network, engine = self._network, self._network.engine
        workers, size, parts = engine.workers, images.size, iter(images.parts)
        plan, folded = network.plan(size, *images.shape[1:3]), self.fold(weights)
        total, logits = np.zeros(4), []
        for start in range(0, len(images), size * workers):
            pixels = next(parts)
            if workers > 1:
                pixels = engine.make_list([pixels, *islice(parts, workers - 1)])
            inputs = {
                "X": pixels,
                "packed": images.packed,
                "y": y[start : start + size * workers],
                "num_classes": network.num_classes,
                "mean": mean,
                "std": std,
                "folded": folded,
                "plan": plan,
            }
            if workers > 1:
                results = engine.run(_PARALLEL_EVALUATE, inputs | {"size": size})
            else:
                results = engine.run(_EVALUATE, inputs)
            total += engine.to_numpy(results["metrics"])[0]
            if workers > 1:
                scores = engine.list_items(results["parts"])
                engine.free([pixels, results["parts"]], keep=[])
            else:
                scores = [results["logits"]]
            logits += map(engine.to_numpy, scores)
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


def log_softmax(scores: np.ndarray) -> np.ndarray:
    """Logarithms of probabilities, of shape (N, K), from scores of the same shape."""
    shifted = scores - scores.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
