"""ONNX files: a network for inference in one file, which many programs run without PyTorch or SystemDS.

Norms are nodes of their own, and tensors have torchvision's names: the numbers in the file are those of the
weights in float32, so that they can be compared and read again. Programs that run such files make norms part
of the convolutions before them when they load a file.

Sources: https://onnx.ai/onnx/operators/ and https://onnx.ai/onnx/repo-docs/Versioning.html.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np

from sysds_resnet.errors import UserError, one_line
from sysds_resnet.imagenet import DEFAULT_IMAGE_SIZE, default_resize_size
from sysds_resnet.network.inference import BN_EPS
from sysds_resnet.network.names import fail
from sysds_resnet.network.preprocessing import check_preprocessing
from sysds_resnet.network.registry import Network, Unit
from sysds_resnet.network.walk import POOL_KERNEL, POOL_PADDING, POOL_STRIDE, walk
from sysds_resnet.system.command_lines import DISTRIBUTION
from sysds_resnet.system.extras import extra
from sysds_resnet.system.files import write_whole

OPSET = 13
"""The version of the operators in a file: that of ONNX 1.8, of the year 2020. Programs read files of all
versions up to their own, and no newer one has anything that a ResNet needs."""

IR_VERSION = 7
"""The version of the file format, which came with these operators. By default, the onnx package writes its
own newest version, which older programs refuse."""

SUFFIX = ".onnx"
LOGITS = "logits"

OnnxInput = Literal["pixels", "normalized"]
"""What a file takes: pixels from 0 to 255, which it normalizes itself, or normalized ones. It is also the
name of the file's input."""

_MOST_BYTES = 2**31 - 2**24  # Protocol Buffers end at 2 GiB; the rest is for what is not tensors


def onnx_package(path: str | Path) -> ModuleType:
    """Gives the package onnx, which not everybody has installed; `path` is the file to write.

    Raises:
        UserError: If it is not installed.
    """
    with extra("onnx", str(path)):
        import onnx
    return onnx


def write_onnx(
    path: Path,
    weights: Mapping[str, np.ndarray],
    network: Network,
    metadata: Mapping[str, Any],
    source: str,
    takes: OnnxInput = "pixels",
) -> None:
    """Writes a network for inference as an ONNX file, whole or not at all, after onnx's own checks.

    The file's input, which has the name `takes`, is float32 of shape (batch, channels, height, width). Any
    number of images is taken, and any height and width from 32 pixels. The output "logits" is float32 of
    shape (batch, classes). The file's metadata are texts of JSON by name:

    - "input" and "input_range": `takes`, and the least and greatest value of pixels from 0 to 255 in it;
    - "mean" and "std": the mean and standard deviation of each channel, for pixels from 0 to 255;
    - "classes": the names of the classes, if the weights have any;
    - "image_size" and "resize_size": height and width of the images that the network is meant for, and their
      shorter side before the centre crop, in pixels;
    - "source": what the weights come from.

    Args:
        path: The path of the file, which ends in .onnx.
        weights: The weights by torchvision's names; they are written in float32.
        network: The network that the weights belong to.
        metadata: The metadata of the weights. Missing values are those that the commands use: ImageNet's.
        source: What the weights come from.
        takes: What the file's input is.

    Raises:
        UserError: If the path has another ending, the package onnx is missing, the metadata do not fit the
            network, the weights are too large for the format, or the file cannot be written.
    """
    onnx = onnx_package(path)
    if path.suffix.lower() != SUFFIX:
        fail(path, f"has extension {path.suffix!r}, expected {SUFFIX}; rename it")
    size = sum(4 * np.size(array) for array in weights.values())
    if size > _MOST_BYTES:
        fail(
            path,
            f"found {size / 2**30:.3g} GiB of weights, expected less than 2 GiB, as an {SUFFIX} file holds; "
            "convert a network with fewer classes",
        )
    described = describe_input(metadata, network.channels, network.num_classes, takes) | {"source": source}
    model = _model(onnx, weights, network, described)
    onnx.checker.check_model(model, full_check=True)
    try:
        write_whole({path: lambda temporary: temporary.write_bytes(model.SerializeToString())})
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({one_line(error)}), expected room for a file; check the folder and "
            "the disk"
        ) from error


def describe_input(
    metadata: Mapping[str, Any], channels: int, num_classes: int, takes: OnnxInput
) -> dict[str, Any]:
    """Gives what a file's metadata say of its input and its classes, by name, as `write_onnx` lists it.

    Raises:
        UserError: If the metadata do not fit the network.
    """
    values = (metadata.get(name) for name in ("mean", "std", "classes"))
    mean, std, classes = check_preprocessing(*values, channels, num_classes)
    ends = np.array([[0.0], [255.0]])
    if takes == "normalized":
        ends = (ends - mean) / std
    size = metadata.get("image_size") or [DEFAULT_IMAGE_SIZE] * 2
    return {
        "input": takes,
        "input_range": [float(ends.min()), float(ends.max())],
        "mean": mean[0].tolist(),
        "std": std[0].tolist(),
        **({"classes": classes} if classes else {}),
        "image_size": list(size),
        "resize_size": metadata.get("resize_size") or default_resize_size(min(size)),
    }


def _model(
    onnx: ModuleType, weights: Mapping[str, np.ndarray], network: Network, described: Mapping[str, Any]
) -> Any:
    """Gives the ModelProto of a network, with `described` in its metadata."""
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    takes: str = described["input"]
    tensors = {tensor.name: np.asarray(weights[tensor.name]) for tensor in network.tensors}
    graph = _Graph(helper)
    images = takes
    if takes == "pixels":
        shape = (1, network.channels, 1, 1)  # one number for each channel of (batch, channels, height, width)
        tensors |= {name: np.reshape(described[name], shape) for name in ("mean", "std")}
        images = graph.node("Div", [graph.node("Sub", [takes, "mean"], "centred"), "std"], "normalized")
    walk(network.units, graph, images)
    sizes = ["batch", network.channels, "height", "width"]
    text = _text_of_input(described, network.channels)
    given = helper.make_tensor_value_info(takes, kind, sizes, text)
    text = "The scores of the classes before the softmax."
    result = helper.make_tensor_value_info(LOGITS, kind, ["batch", network.num_classes], text)
    stored = [
        helper.make_tensor(name, kind, array.shape, np.ascontiguousarray(array, "<f4").tobytes(), raw=True)
        for name, array in tensors.items()
    ]
    name = f"resnet{network.depth}"
    model = helper.make_model(
        helper.make_graph(graph.nodes, name, [given], [result], stored),
        producer_name=DISTRIBUTION,
        producer_version=version(DISTRIBUTION),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        doc_string=f"ResNet-{network.depth} v1.5, for inference. The metadata are texts of JSON.",
    )
    helper.set_model_props(
        model, {name: json.dumps(value, ensure_ascii=False) for name, value in described.items()}
    )
    return model


def _text_of_input(described: Mapping[str, Any], channels: int) -> str:
    """Describes the input for people who look at a file."""
    of = "RGB images" if channels == 3 else f"Images of {channels} channels"
    height, width = described["image_size"]
    text = f"{of}, with pixels from 0 to 255"
    if described["input"] == "normalized":
        text += ", minus the mean and divided by the std in the metadata, channel by channel"
    return (
        f"{text}. The network is meant for {height} x {width} pixels from the centre of images whose shorter "
        f"side was resized to {described['resize_size']}; it takes other sizes from 32 pixels as well."
    )


class _Graph:
    """The operations of a network as nodes of an ONNX graph; a value is the name of its node.

    Args:
        helper: The module onnx.helper.
    """

    def __init__(self, helper: ModuleType) -> None:
        self._helper = helper
        self.nodes: list[Any] = []

    def node(self, operator: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        """Adds a node, and gives its name."""
        self.nodes.append(self._helper.make_node(operator, inputs, [name], name=name, **attributes))
        return name

    def unit(self, x: str, unit: Unit) -> str:
        """Adds a convolution and its norm."""
        y = self.node(
            "Conv",
            [x, f"{unit.conv}.weight"],
            unit.conv,
            kernel_shape=[unit.kernel] * 2,
            strides=[unit.stride] * 2,
            pads=[unit.kernel // 2] * 4,
        )
        tensors = [f"{unit.norm}.{part}" for part in ("weight", "bias", "running_mean", "running_var")]
        return self.node("BatchNormalization", [y, *tensors], unit.norm, epsilon=BN_EPS)

    def relu(self, x: str) -> str:
        """Adds a ReLU."""
        return self.node("Relu", [x], f"{x}.relu")

    def max_pool(self, x: str) -> str:
        """Adds the max pool."""
        sizes = {"kernel_shape": [POOL_KERNEL] * 2, "strides": [POOL_STRIDE] * 2, "pads": [POOL_PADDING] * 4}
        return self.node("MaxPool", [x], "maxpool", **sizes)

    def add(self, x: str, y: str) -> str:
        """Adds the sum at a block's end."""
        return self.node("Add", [x, y], f"{x}.add")

    def head(self, x: str) -> str:
        """Adds the mean over all pixels and the final layer, whose output is called logits."""
        features = self.node("Flatten", [self.node("GlobalAveragePool", [x], "avgpool")], "features", axis=1)
        return self.node("Gemm", [features, "fc.weight", "fc.bias"], LOGITS, transB=1)
