"""The gradients of a batch, by programs that end where other processes can begin to sum."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from py4j.java_gateway import JavaObject

from sysds_resnet.classes.labels import MixedLabels
from sysds_resnet.engine import Engine
from sysds_resnet.engine.program import Program
from sysds_resnet.errors import UserError
from sysds_resnet.network.arrays import SentImages, check_images, check_labels, lay_out, weigh
from sysds_resnet.network.inference import BN_EPS, TAKE_BATCH
from sysds_resnet.network.model import Model
from sysds_resnet.training.optimizer import Optimizer

_SETTINGS = "settings = trainer::settings(mean, std, label_smoothing, frozen, eps)"
_UPPER = Program(
    f"""{TAKE_BATCH}
{_SETTINGS}
[upper, metrics, rest] = trainer::upper_gradients(pixels, y, model, plan, settings, batch_size)
""",
    {"upper": "list", "metrics": "matrix", "rest": "list"},
    "device",
)
_LOWER = Program(
    f"""
source("dml/training/gradients.dml") as trainer
{_SETTINGS}
lower = trainer::lower_gradients(rest, model, plan, settings)
""",
    {"lower": "list"},
    "device",
)
_JOIN = Program(
    """
source("dml/network/backward.dml") as back
gradients = back::join(lower, upper)
""",
    {"gradients": "list"},
    "device",
)
_ADD = Program(
    """
source("dml/optim/tensors.dml") as tensors
gradients = tensors::add(gradients, others)
""",
    {"gradients": "list"},
    "device",
    held=True,
)


def lay_out_batch(model: Model, images: np.ndarray, optimizer: Optimizer) -> SentImages:
    """Gives the images of a batch (N, H, W, C) in micro-batches, as arrays that the engine takes.

    Raises:
        UserError: If they are no images of this model, or the micro-batch does not divide them.
    """
    size = optimizer.micro_batch
    images = check_images(images, model.network.channels)
    laid_out = lay_out(images, size, model.engine)
    if len(images) % size:
        raise UserError(
            f"micro_batch: found {size} for a batch of {len(images)} images, expected a divisor of it; "
            "choose one"
        )
    return replace(laid_out, parts=list(laid_out.parts))


def compute_gradients(
    model: Model,
    images: np.ndarray | SentImages,
    labels: np.ndarray | MixedLabels,
    optimizer: Optimizer,
    batch_size: int | None = None,
    early: Callable[[JavaObject], object] = lambda upper: None,
) -> tuple[JavaObject, np.ndarray]:
    """Computes the gradients and metrics of a batch, by the rule of `batch_gradients` in gradients.dml.

    If the images are arrays, the JVM holds the pixels of one micro-batch at a time.

    Args:
        model: The model.
        images: The images of the batch (N, H, W, C), or what `State.send` made of them.
        labels: Their labels, from 0.
        optimizer: The optimizer, which also says how large a micro-batch is.
        batch_size: The number of images in the batch, if these are only a part of it. The results of all
            parts of a batch add up to those of the batch.
        early: A function that is given the handle of the gradients of the last stage and the final layer,
            the end of the list, as soon as they are known. The others are computed once it returns.

    Returns:
        The handle of the gradients, and the metrics, as `State.apply` takes them.

    Raises:
        UserError: If a label is out of range, or the images are none of this model.
    """
    network, size = model.network, optimizer.micro_batch
    engine = network.engine
    sent = images if isinstance(images, SentImages) else lay_out_batch(model, images, optimizer)
    sent.check(engine, network.channels, model.std)
    y = weigh(check_labels(labels, len(images), network.num_classes), optimizer.class_weights)
    plan = network.plan(size, *sent.shape[1:3], backward=True)
    settings = {
        "mean": model.mean,
        "std": model.std,
        "label_smoothing": optimizer.label_smoothing,
        "frozen": optimizer.frozen,
        "eps": BN_EPS,
        "model": model.weights,
        "plan": plan,
    }
    upper, lower, metrics = None, None, np.zeros(4)
    for i, pixels in enumerate(sent.parts):
        batch = {
            "X": pixels,
            "packed": sent.packed,
            "y": y[i * size : (i + 1) * size],
            "num_classes": network.num_classes,
            "batch_size": float(batch_size or len(images)),
        }
        begun = engine.run(_UPPER, batch | settings)
        metrics += engine.to_numpy(begun["metrics"])[0]
        upper = _sum(engine, upper, begun["upper"])
        if i == len(sent.parts) - 1:
            early(upper)
        done = engine.run(_LOWER, {"rest": begun["rest"], **settings})
        engine.free([begun["rest"]], keep=[upper, done["lower"], model.weights])
        lower = _sum(engine, lower, done["lower"])
    return engine.run(_JOIN, {"lower": lower, "upper": upper})["gradients"], metrics


def _sum(engine: Engine, gradients: JavaObject | None, others: JavaObject) -> JavaObject:
    """Gives the sum of two lists of gradients, which are used up; that of the others if there is one list."""
    if gradients is None:
        return others
    done = engine.run(_ADD, {"gradients": gradients, "others": others})["gradients"]
    engine.free([gradients, others], keep=[done])
    engine.recycle([gradients, others], keep=[done])
    return done
