"""The check of a conversion: the same images, scored with the weights in each form that it connects.

The source is scored by this project in FP64, which is the reference. Each form that another program reads is
scored by that program, if it is installed, and the destination by this project otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sysds_resnet.engine import Engine
from sysds_resnet.errors import UserError
from sysds_resnet.imagenet import DEFAULT_IMAGE_SIZE
from sysds_resnet.images import open_dataset
from sysds_resnet.images.settings import print_notes
from sysds_resnet.network.inference import softmax
from sysds_resnet.network.model import Model
from sysds_resnet.network.names import Weights
from sysds_resnet.network.preprocessing import of_a_model
from sysds_resnet.network.weights.containers import TORCH_SUFFIXES
from sysds_resnet.network.weights.forms import load_weights
from sysds_resnet.network.weights.huggingface import CONFIG_FILE
from sysds_resnet.scoring.consumers import (
    FormScores,
    by_onnxruntime,
    by_torch,
    by_transformers,
    transformers_package,
)

Form = Literal["torchvision", "huggingface", "systemds", "onnx"]

ALLOWED = {"float16": 3e-2, "float32": 1e-4, "float64": 1e-6}
"""The largest difference of logits that a type of numbers explains, as a share of the largest logit.

In float32, all depths differ by less than a tenth of it in tests/network/weights/test_onnx_files.py.
What is converted wrongly, such as a mean or a stride, makes larger differences than this.
"""

MOST_IMAGES = 16
"""The number of images of a data set that are scored, evenly spread over it."""

_GENERATED = 4


def images_for(
    metadata: Mapping[str, Any], channels: int, dataset: str | None, source: str
) -> tuple[np.ndarray, str]:
    """Gives images to compare scores of, uint8 of shape (N, H, W, C), and says what they are.

    Args:
        metadata: The metadata of the weights, which have the size of the images.
        channels: The number of channels of generated images; those of data sets have three.
        dataset: The data set whose validation images are taken; None for generated images.
        source: What errors call the weights.

    Raises:
        UserError: If the data set cannot be opened, or an image cannot be read.
    """
    if dataset is None:
        height, width = metadata.get("image_size") or [DEFAULT_IMAGE_SIZE] * 2
        return generated(_GENERATED, height, width, channels), f"{_GENERATED} generated images"
    height, width = metadata.get("image_size") or (None, None)
    if height != width:
        raise UserError(
            f"{source}: found images of {height} x {width} pixels, expected square ones, as data sets have; "
            "leave --dataset out"
        )
    opened = open_dataset(dataset, "val", image_size=height, resize_size=metadata.get("resize_size"))
    print_notes(opened)
    chosen = np.unique(np.linspace(0, len(opened) - 1, min(MOST_IMAGES, len(opened))).round().astype(int))
    images = np.stack([opened.image(int(i), 0) for i in chosen])
    return images, f"{len(chosen)} images of the data set {dataset}"


def generated(n: int, height: int, width: int, channels: int) -> np.ndarray:
    """Gives random images of coarse squares and fine noise, uint8 of shape (n, height, width, channels).

    They are the same in every call. They use all of the range from 0 to 255, and differ from each other more
    than images of noise alone would.
    """
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 192, (n, 8, 8, channels))
    rows, columns = (np.arange(side) * 8 // side for side in (height, width))
    squares = coarse[:, rows][:, :, columns]
    return (squares + rng.integers(0, 64, squares.shape)).astype(np.uint8)


def scores_of_forms(
    source: Path,
    weights: Weights,
    model: Model,
    destination: Path,
    form: Form,
    dtype: str,
    images: np.ndarray,
) -> list[FormScores]:
    """Scores images with the weights in each form of a conversion, by the program that reads this form.

    Args:
        source: The path of the weights that were converted.
        weights: These weights by torchvision's names, as they were read.
        model: A model of these weights.
        destination: The file or folder that was written.
        form: The form of what was written.
        dtype: The type of the numbers that were written.
        images: The images, uint8 of shape (N, H, W, C).

    Returns:
        The scores: first those of the source by this project, then those that are compared with them.
    """
    engine = model.engine
    found = [FormScores(source, by_this_project(engine), model.logits(images), "float64")]
    if source.suffix.lower() in TORCH_SUFFIXES and source.is_file():
        found.append(by_torch(source, weights, model, images))
    elif _of_transformers(source) and (package := transformers_package()) is not None:
        found.append(by_transformers(package, source, images))
    if form == "onnx":
        found.append(by_onnxruntime(destination, images))
    elif form == "huggingface" and (package := transformers_package()) is not None:
        found.append(by_transformers(package, destination, images, dtype))
    else:
        read, metadata, _ = load_weights(destination, engine)
        copy = Model.from_state_dict(read, engine, str(destination), **of_a_model(metadata))
        found.append(FormScores(destination, by_this_project(engine), copy.logits(images), dtype))
    return found


def by_this_project(engine: Engine) -> str:
    """Names what scores images here, with the precision of its multiplies."""
    return f"this project in {engine.multiply.precision} precision"


def compare(found: list[FormScores]) -> tuple[list[str], bool]:
    """Compares the scores of all forms with the first ones.

    Args:
        found: The scores, as `scores_of_forms` gives them.

    Returns:
        A line for each form, with the largest differences and what is allowed; and whether all are allowed.
        Scores that are not finite are never allowed.
    """
    reference, *others = found
    largest = float(np.abs(reference.logits).max())
    lines, agree = [f"{reference.path} by {reference.by}: logits up to {largest:.4g}"], True
    for other in others:
        difference = float(np.abs(other.logits - reference.logits).max())
        of_probabilities = float(np.abs(softmax(other.logits) - softmax(reference.logits)).max())
        share = difference / max(largest, np.finfo(float).tiny)
        allowed = ALLOWED[other.dtype]
        lines.append(
            f"{other.path} by {other.by}: logits differ by up to {difference:.2g}, "
            f"{share:.1e} of the largest (allowed: {allowed:.0e}), "
            f"probabilities by up to {of_probabilities:.2g}"
        )
        agree = agree and share <= allowed
    return lines, agree


def _of_transformers(path: Path) -> bool:
    """Tells whether a path is a folder of one of transformers' ResNets with a final layer, by its config."""
    try:
        config = json.loads((path / CONFIG_FILE).read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and config.get("architectures") == ["ResNetForImageClassification"]
