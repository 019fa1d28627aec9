"""The scores of images by other programs, as those who are given a file of weights will see them.

ONNX Runtime, transformers and PyTorch are not installed everywhere; each is imported where it is needed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from sysds_resnet.errors import UserError, one_line
from sysds_resnet.network.inference import BN_EPS
from sysds_resnet.network.registry import Unit
from sysds_resnet.network.walk import POOL_KERNEL, POOL_PADDING, POOL_STRIDE, walk
from sysds_resnet.network.weights.forms import load_weights
from sysds_resnet.system.console import note
from sysds_resnet.system.extras import extra

if TYPE_CHECKING:
    import torch

    from sysds_resnet.network.model import Model


@dataclass(frozen=True, eq=False)
class FormScores:
    """The scores of images with the weights in one form, by some program.

    Attributes:
        path: The file or folder with the weights.
        by: The program, with its version.
        logits: The logits, float64 of shape (N, num_classes).
        dtype: The type of numbers, as NumPy calls it, whose rounding explains a difference from exact scores.
    """

    path: Path
    by: str
    logits: np.ndarray
    dtype: str


def onnxruntime_package(path: Path) -> ModuleType:
    """Gives the package onnxruntime, which not everybody has installed; `path` is the file to run.

    Raises:
        UserError: If it is not installed.
    """
    with extra("onnx", str(path)):
        import onnxruntime
    return onnxruntime


def by_onnxruntime(path: Path, images: np.ndarray) -> FormScores:
    """Scores images by ONNX Runtime on the CPU, with what the file's metadata say of its input.

    Args:
        path: A file that `write_onnx` wrote.
        images: The images, uint8 of shape (N, H, W, C).
    """
    runtime = onnxruntime_package(path)
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    known = {n: json.loads(v) for n, v in session.get_modelmeta().custom_metadata_map.items()}
    pixels = images.astype(np.float32)
    if known["input"] == "normalized":
        pixels = normalized(images, known).astype(np.float32)
    feed = {session.get_inputs()[0].name: np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))}
    (logits,) = session.run(None, feed)
    return FormScores(path, f"ONNX Runtime {runtime.__version__}", logits.astype(float), "float32")


def transformers_package() -> ModuleType | None:
    """Gives the package transformers; None if it or PyTorch, which its networks need, is missing or unusable.

    It may be installed beside a torchvision that it cannot be imported with, which a note then says.
    """
    if find_spec("transformers") is None or find_spec("torch") is None:
        return None
    try:
        import transformers

        for name in ("ResNetForImageClassification", "AutoImageProcessor"):
            getattr(transformers, name)
    except Exception as error:  # whatever goes wrong in other packages
        note(f"transformers: cannot be imported ({one_line(error)}), and is not used for the check")
        return None
    return transformers


def by_transformers(
    transformers: ModuleType, folder: Path, images: np.ndarray, dtype: str = "float32"
) -> FormScores:
    """Scores images by transformers, in float32 or float64, with the folder's network and image processor.

    The images are taken to be of the size of the centre crop, so that the processor does not resize or crop
    them. Images of other than three channels, which processors do not take, are normalized as the folder's
    files say.

    Args:
        transformers: The package transformers.
        folder: A folder with the weights of a ResNetForImageClassification.
        images: The images, uint8 of shape (N, H, W, C).
        dtype: The type of the numbers in the folder, if they were rounded to it.

    Raises:
        UserError: If transformers does not find all tensors of the network in the folder.
    """
    import torch

    place = str(folder.resolve())
    with _quiet(transformers):
        model, found = transformers.ResNetForImageClassification.from_pretrained(
            place, local_files_only=True, output_loading_info=True
        )
        if lost := sorted(map(str, [*found["missing_keys"], *found["mismatched_keys"]])):
            raise UserError(
                f"{folder}: found no {lost[0]} by transformers, expected all tensors of the network; check "
                "its config.json"
            )
        if images.shape[3] == 3:
            processor = transformers.AutoImageProcessor.from_pretrained(place, local_files_only=True)
            pictures = [Image.fromarray(image) for image in images]
            given = processor(pictures, do_resize=False, do_center_crop=False, return_tensors="pt")
            pixels = given["pixel_values"]
        else:
            pixels = _to_torch(normalized(images, load_weights(folder).metadata))
        model = model.eval() if model.dtype == torch.float64 else model.eval().float()
        with torch.no_grad():
            logits = model(pixel_values=pixels.to(model.dtype)).logits
    by = f"transformers {transformers.__version__}"
    return FormScores(folder, by, logits.double().numpy(), dtype)


def by_torch(path: Path, weights: Mapping[str, np.ndarray], model: Model, images: np.ndarray) -> FormScores:
    """Scores images by PyTorch's functions in float32.

    Args:
        path: The file that the weights come from.
        weights: The weights by torchvision's names.
        model: A model of the same weights, whose network, mean and standard deviation are used.
        images: The images, uint8 of shape (N, H, W, C).
    """
    import torch

    tensors = {
        name: torch.from_numpy(np.ascontiguousarray(array, np.float32)) for name, array in weights.items()
    }
    pixels = _to_torch(normalized(images, {"mean": model.mean, "std": model.std})).float()
    with torch.no_grad():
        logits = walk(model.network.units, _Torch(torch, tensors), pixels)
    return FormScores(path, f"PyTorch {version('torch')}", logits.double().numpy(), "float32")


def normalized(images: np.ndarray, metadata: Mapping[str, Any]) -> np.ndarray:
    """Gives images minus the mean and divided by the std in the metadata, float64 of shape (N, H, W, C)."""
    return (images - np.ravel(metadata["mean"])) / np.ravel(metadata["std"])


def _to_torch(images: np.ndarray) -> torch.Tensor:
    """Gives images of shape (N, H, W, C) as a tensor of shape (N, C, H, W)."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


class _Torch:
    """The operations of a network by PyTorch's functions.

    Args:
        torch: The package torch.
        tensors: The tensors by torchvision's names.
    """

    def __init__(self, torch: ModuleType, tensors: Mapping[str, torch.Tensor]) -> None:
        self._functions, self._tensors = torch.nn.functional, tensors

    def unit(self, x: torch.Tensor, unit: Unit) -> torch.Tensor:
        """Computes a convolution and its norm."""
        filters = self._tensors[f"{unit.conv}.weight"]
        y = self._functions.conv2d(x, filters, stride=unit.stride, padding=unit.kernel // 2)
        parts = ("running_mean", "running_var", "weight", "bias")
        return self._functions.batch_norm(y, *(self._tensors[f"{unit.norm}.{p}"] for p in parts), eps=BN_EPS)

    def relu(self, x: torch.Tensor) -> torch.Tensor:
        """Computes a ReLU."""
        return self._functions.relu(x)

    def max_pool(self, x: torch.Tensor) -> torch.Tensor:
        """Computes the max pool."""
        return self._functions.max_pool2d(x, POOL_KERNEL, POOL_STRIDE, POOL_PADDING)

    def add(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Computes the sum at a block's end."""
        return x + y

    def head(self, x: torch.Tensor) -> torch.Tensor:
        """Computes the final layer of the mean over all pixels."""
        features = x.mean(dim=(2, 3))
        return self._functions.linear(features, self._tensors["fc.weight"], self._tensors["fc.bias"])


@contextmanager
def _quiet(transformers: ModuleType) -> Iterator[None]:
    """Keeps progress bars and advice of transformers from the terminal meanwhile."""
    logging = transformers.utils.logging
    bars, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
