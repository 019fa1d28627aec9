"""A ResNet-18 of ones and a few tensors, quick to write; whether weights are the same, and their errors."""

import numpy as np
import torch


def assert_same(left, right):
    assert set(left) == set(right)
    for name in left:
        assert left[name].dtype == right[name].dtype, name
        assert left[name].shape == right[name].shape, name
        assert left[name].tobytes() == right[name].tobytes(), name


def tiny(value=1.0, names=("conv1.weight", "bn1.running_mean", "layer1.0.conv1.weight", "layer4.1.bn2.bias")):
    """Some tensors of a ResNet's by torchvision's names, all of one number."""
    return {name: torch.full((2,), value) for name in names}


def prefixed(prefix, tensors):
    return {prefix + name: tensor for name, tensor in tensors.items()}


def small(dtype=np.float32):
    return {"conv1.weight": np.arange(24).reshape(2, 3, 4).astype(dtype), "fc.bias": np.ones(5, dtype)}


def resnet18(num_classes=3, channels=3, head="fc", stem=64):
    """All tensors of a ResNet-18 as arrays that take no memory: broadcast ones in float16."""
    shapes = {"conv1.weight": (stem, channels, 7, 7), **_norm("bn1", stem)}
    inputs = stem
    for stage in (1, 2, 3, 4):
        width = stem << stage - 1
        for block in (0, 1):
            name = f"layer{stage}.{block}"
            shapes[f"{name}.conv1.weight"] = (width, inputs, 3, 3)
            shapes |= _norm(f"{name}.bn1", width)
            shapes[f"{name}.conv2.weight"] = (width, width, 3, 3)
            shapes |= _norm(f"{name}.bn2", width)
            if inputs != width:
                shapes[f"{name}.downsample.0.weight"] = (width, inputs, 1, 1)
                shapes |= _norm(f"{name}.downsample.1", width)
            inputs = width
    if head:
        shapes |= {f"{head}.weight": (num_classes, 8 * stem), f"{head}.bias": (num_classes,)}
    return {name: np.broadcast_to(np.float16(1), shape) for name, shape in shapes.items()}


def _norm(name, width):
    return {f"{name}.{part}": (width,) for part in ("weight", "bias", "running_mean", "running_var")}
