"""The names of a ResNet's tensors in torchvision and Hugging Face, and the architecture that they reveal.

Sources: the names of torchvision's ``models/resnet.py`` and of transformers'
``models/resnet/modeling_resnet.py``, which microsoft/resnet-18 ... resnet-152 use.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

import numpy as np

from sysds_resnet.errors import UserError

# The kind of block, and the number of blocks in each stage. Source: He et al. 2015,
# https://arxiv.org/abs/1512.03385, table 1.
STAGES: dict[int, tuple[str, tuple[int, ...]]] = {
    18: ("basic", (2, 2, 2, 2)),
    34: ("basic", (3, 4, 6, 3)),
    50: ("bottleneck", (3, 4, 6, 3)),
    101: ("bottleneck", (3, 4, 23, 3)),
    152: ("bottleneck", (3, 8, 36, 3)),
}
STEM_FILTERS = 64
"""The filters of the stem, and of the 3 x 3 convolutions in the first stage; each later stage has twice as
many. Weights of other files are known by it; what computes asks dml/network/registry.dml."""
EXPANSION = {"basic": 1, "bottleneck": 4}
"""For each filter of a block's 3 x 3 convolution, the channels of its output."""

_HF_BLOCK = {
    **{f"conv{i + 1}": f"layer.{i}.convolution" for i in range(3)},
    **{f"bn{i + 1}": f"layer.{i}.normalization" for i in range(3)},
    "downsample.0": "shortcut.convolution",
    "downsample.1": "shortcut.normalization",
}
_TO_HF = {
    "conv1": "resnet.embedder.embedder.convolution",
    "bn1": "resnet.embedder.embedder.normalization",
    "fc": "classifier.1",
    **{
        f"layer{stage + 1}.{block}.{ours}": f"resnet.encoder.stages.{stage}.layers.{block}.{theirs}"
        for stage in range(4)
        for block in range(max(counts[stage] for _, counts in STAGES.values()))
        for ours, theirs in _HF_BLOCK.items()
    },
}
_FROM_HF = {theirs: ours for ours, theirs in _TO_HF.items()}

Weights = dict[str, np.ndarray]


@dataclass(frozen=True)
class Architecture:
    """The architecture of a network: its depth (18, 34, 50, 101 or 152), input channels and classes."""

    depth: int
    channels: int
    num_classes: int


@dataclass(frozen=True)
class Backbone:
    """The architecture of a network without its final layer, which would take `features` numbers an image."""

    depth: int
    channels: int
    features: int


def to_huggingface(weights: Mapping[str, np.ndarray], source: str = "weights") -> Weights:
    """Renames tensors from torchvision's names to those of transformers' ``ResNetForImageClassification``.

    Arrays and order stay the same; `from_huggingface` is the exact inverse at every depth. ``source`` is what
    an error calls the weights. Raises UserError for a name that no ResNet has.
    """
    return _rename(weights, _TO_HF, source)


def from_huggingface(weights: Mapping[str, np.ndarray], source: str = "weights") -> Weights:
    """Renames tensors from Hugging Face's ResNet names to torchvision's: the inverse of `to_huggingface`."""
    return _rename(weights, _FROM_HF, source)


def infer_architecture(weights: Mapping[str, np.ndarray], source: str = "weights") -> Architecture:
    """Infers the network from torchvision's names and a few shapes; `check_tensors` checks all of them.

    ResNet v1 (stride on the first 1x1) has the names and shapes of v1.5 (stride on the 3x3) and is taken for
    it. Raises UserError when stem, blocks, width or head are not those of depth 18, 34, 50, 101 or 152.
    """
    backbone = infer_backbone(weights, source)
    if "fc.weight" not in weights:
        others = [name for name in weights if not is_body(name)]
        has = f"its final part is {others[0]!r} and so on" if others else "it is a backbone alone"
        fail(
            source,
            f"fc.weight is missing, expected shape (any, {backbone.features}); {has}, which gives no class "
            "scores: start training from it with train --init-from",
        )
    num_classes = _shape(weights, "fc.weight", (None, backbone.features), source)[0]
    return Architecture(backbone.depth, backbone.channels, num_classes)


def infer_backbone(weights: Mapping[str, np.ndarray], source: str = "weights") -> Backbone:
    """Infers the network but for its final layer, in the way and with the errors of `infer_architecture`."""
    stages = [[name.split(".")[1] for name in weights if name.startswith(f"layer{i}.")] for i in (1, 2, 3, 4)]
    counts = tuple(len(set(blocks)) for blocks in stages)
    if not any(counts):
        names = ", ".join(map(repr, list(weights)[:3])) or "no tensors"
        fail(source, f"holds {names}; expected a ResNet with torchvision's names (layer1.0.conv1.weight)")
    kind = "bottleneck" if "layer1.0.conv3.weight" in weights else "basic"
    depth = next((depth for depth, known in STAGES.items() if known == (kind, counts)), None)
    if depth is None:
        known = ", ".join(f"{depth}: {kind} {counts}" for depth, (kind, counts) in STAGES.items())
        fail(source, f"has {kind} blocks {counts} in its stages; expected a ResNet of depth {known}")
    kernel, features = (1 if kind == "bottleneck" else 3), stage_channels(kind)[-1]
    if any(name.startswith("conv1.0.") for name in weights):
        fail(
            source,
            "has a stem of several convolutions, as timm's resnet50d; expected one 7 x 7 (conv1.weight)",
        )
    filters = STEM_FILTERS
    channels = _shape(weights, "conv1.weight", (filters, None, 7, 7), source)[1]
    _shape(weights, "layer1.0.conv1.weight", (filters, filters, kernel, kernel), source)
    if kind == "bottleneck":  # a ResNeXt has groups here
        _shape(weights, "layer1.0.conv2.weight", (filters, filters, 3, 3), source)
    return Backbone(depth, channels, features)


def stage_channels(kind: str) -> list[int]:
    """Gives the channels of the four stages' outputs for a kind of block ("basic" or "bottleneck")."""
    return [STEM_FILTERS * EXPANSION[kind] << stage for stage in range(4)]


def is_body(name: str) -> bool:
    """Tells whether a tensor with this torchvision name is of the stem or a stage, not of the final layer."""
    return name.startswith(("conv1.", "bn1.", "layer1.", "layer2.", "layer3.", "layer4."))


def rename_head(weights: Weights, source: str) -> tuple[Weights, list[str]]:
    """Renames the final layer to `fc` if it has another name, and gives a note of it.

    It must be one linear layer that fits the backbone, such as `head.weight` and `head.bias`, or
    `fc.1.weight` behind a dropout. With any other final part, which computes something else, the weights come
    back as they are.
    """
    rest = sorted(name for name in weights if not is_body(name))
    name = rest[-1].removesuffix(".weight") if rest else "fc"
    features = np.shape(weights.get("layer4.0.conv3.weight", weights.get("layer4.0.conv2.weight")))[:1]
    matrix, bias = (np.shape(weights.get(f"{name}.{part}")) for part in ("weight", "bias"))
    if (
        name == "fc"
        or rest != [f"{name}.bias", f"{name}.weight"]
        or not features
        or matrix != (*bias, *features)
    ):
        return weights, []
    head = {f"fc.{part}": weights[f"{name}.{part}"] for part in ("weight", "bias")}
    text = f"{source}: took the linear layer {name!r} for the final layer, which is called fc here"
    return {n: array for n, array in weights.items() if is_body(n)} | head, [text]


def check_tensors(
    weights: Mapping[str, np.ndarray], expected: Mapping[str, tuple[int, ...]], source: str
) -> None:
    """Raises UserError unless the weights have exactly the expected shapes, and floating, finite values.

    PyTorch's ``num_batches_tracked`` counters are ignored: nothing here reads them. The message names the
    first tensor that does not fit, in the order of ``expected`` and then of ``weights``, and counts the rest.
    """
    faults = []
    for name, shape in expected.items():
        array = np.asarray(weights.get(name, np.nan))
        if name not in weights:
            faults.append(f"{name} is missing, expected shape {tuple(shape)}")
        elif array.shape != tuple(shape):
            faults.append(f"{name} has shape {array.shape}, expected {tuple(shape)}")
        elif not np.issubdtype(array.dtype, np.floating):
            faults.append(f"{name} has dtype {array.dtype}, expected a floating one")
        elif wrong := array.size - np.count_nonzero(np.isfinite(array)):
            faults.append(f"{name} has {wrong} NaN or infinite values of {array.size}, expected none")
        elif name.endswith("running_var") and array.size and array.min() < 0:
            faults.append(f"{name} has the negative variance {array.min():g}, expected none below 0")
    for name in weights:
        if name not in expected and not name.endswith("num_batches_tracked"):
            faults.append(f"{name!r} is unexpected, the network has no such tensor")
    if faults:
        rest = f" (and {len(faults) - 1} more tensors do not fit)" if len(faults) > 1 else ""
        fail(source, f"{faults[0]}{rest}; give sound weights of the same depth, channels and classes")


def fail(source: object, text: str) -> NoReturn:
    """Raises UserError with a message on one line, even if names or library messages hold line breaks."""
    raise UserError(re.sub(r"\s*[\r\n]+\s*", " ", f"{source}: {text}")) from None


def _shape(
    weights: Mapping[str, np.ndarray], name: str, expected: tuple[int | None, ...], source: str
) -> tuple[int, ...]:
    """Gives the shape of a tensor, or fails if it is not the expected one, where None stands for any size."""
    found = np.shape(weights[name]) if name in weights else None
    if (
        found is None
        or len(found) != len(expected)
        or any(e not in (None, f) for e, f in zip(expected, found, strict=True))
    ):
        what = "is missing" if found is None else f"has shape {found}"
        wanted = str(expected).replace("None", "any")
        fail(source, f"{name} {what}, expected {wanted}; give a plain ResNet (no ResNeXt, no wide one)")
    return found


def _rename(weights: Mapping[str, np.ndarray], modules: Mapping[str, str], source: str) -> Weights:
    parts = {name: name.rpartition(".") for name in weights}
    for name, (module, _, _) in parts.items():
        if module not in modules:
            fail(
                source, f"{name!r} is no tensor of a ResNet; expected {next(iter(modules))}.weight and so on"
            )
    return {f"{modules[parts[name][0]]}.{parts[name][2]}": array for name, array in weights.items()}
