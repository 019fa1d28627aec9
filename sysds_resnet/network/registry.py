"""A network in the engine: its registry of tensors, its plans, and weights on their way in and out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

import numpy as np
from py4j.java_gateway import JavaObject

from sysds_resnet.engine import Engine
from sysds_resnet.errors import UserError
from sysds_resnet.network.names import Weights, check_tensors
from sysds_resnet.network.weights.containers import to_arrays

MIN_SIZE = 32  # pixels; a side is halved five times, so that the last stage has one pixel left

_DESCRIBE = """
source("dml/network/registry.dml") as reg
source("dml/network/names.dml") as names
registry = reg::describe(depth, channels, num_classes)
if (channel_major) {
  registry = reg::channel_major(registry)
}
units = as.matrix(registry["units"])
tensors = as.matrix(registry["tensors"])
keys = ""
for (t in 1:nrow(tensors)) {
  key = names::name(registry, t)
  keys = keys + key + " "
}
"""
_PLAN = """
source("dml/network/plan.dml") as plan
plan = plan::build(registry, N, H, W, backward, gpu)
"""
_MATRICES = """
source("dml/network/plan.dml") as plan
[gathers, transposes] = plan::matrices(N, H, W, backward)
"""
_PLAN_OF_MATRICES = """
source("dml/network/plan.dml") as plan
plan = plan::assemble(registry, H, W, gathers, transposes, FALSE)
"""


class Role(Enum):
    """The role of a tensor in the network, by the name that dml/network/registry.dml has for it."""

    CONV_WEIGHT = "conv_weight"
    NORM_SCALE = "norm_scale"
    NORM_SHIFT = "norm_shift"
    RUNNING_MEAN = "running_mean"
    RUNNING_VAR = "running_var"
    FC_WEIGHT = "fc_weight"
    FC_BIAS = "fc_bias"

    @property
    def trained(self) -> bool:
        """Whether the optimizer changes tensors of this role."""
        return self not in (Role.RUNNING_MEAN, Role.RUNNING_VAR)


_DESCRIBE += "".join(f'number_of_{role.value} = reg::role("{role.value}")\n' for role in Role)
_NUMBERS = {f"number_of_{role.value}": "int" for role in Role}


@dataclass(frozen=True)
class Tensor:
    """One tensor of the registry.

    Attributes:
        name: The name of the tensor in torchvision.
        role: The role of the tensor in the network.
        shape: The shape of the tensor in torchvision.
        channel_major: Whether the engine computes on images channel by channel, not pixel by pixel, which
            decides the shape of the tensor's matrix (see dml/network/registry.dml).
    """

    name: str
    role: Role
    shape: tuple[int, ...]
    channel_major: bool = False

    def to_engine(self, array: np.ndarray) -> np.ndarray:
        """Reshapes an array from torchvision's shape to the engine's matrix.

        Filters (F, C, K, K) become (K*K*C, F), or (F, C*K*K) if they are channel-major.
        """
        if self.role == Role.FC_WEIGHT:
            return array.T
        if self.role == Role.FC_BIAS:
            return array.reshape(1, -1)
        if self.channel_major:
            return array.reshape(len(array), -1)
        if self.role == Role.CONV_WEIGHT:
            return array.transpose(2, 3, 1, 0).reshape(-1, array.shape[0])
        return array.reshape(1, -1)

    def from_engine(self, matrix: np.ndarray) -> np.ndarray:
        """Reshapes the engine's matrix to an array of torchvision's shape: the inverse of `to_engine`."""
        if self.role == Role.CONV_WEIGHT and self.channel_major:
            array = matrix.reshape(self.shape)
        elif self.role == Role.CONV_WEIGHT:
            filters, channels, height, width = self.shape
            array = matrix.reshape(height, width, channels, filters).transpose(3, 2, 0, 1)
        else:
            array = matrix.T if self.role == Role.FC_WEIGHT else matrix.reshape(-1)
        return np.ascontiguousarray(array)


@dataclass(frozen=True)
class Unit:
    """One unit of the registry: a convolution without bias, and the norm after it.

    Attributes:
        conv, norm: The names of both in torchvision, such as "layer1.0.conv1" and "layer1.0.bn1".
        block: The number of the residual block, from 1; 0 for the stem.
        kernel: The height and width of the filters. The padding on each side is half of it, rounded down.
        stride: The stride of the convolution.
        shortcut: Whether the unit is a block's shortcut, beside the main path.
    """

    conv: str
    norm: str
    block: int
    kernel: int
    stride: int
    shortcut: bool


class Network:
    """A ResNet of some depth on an engine, without weights.

    Args:
        engine: The engine that the network runs on.
        depth: The depth of the network: 18, 34, 50, 101 or 152.
        channels: The number of channels of the images.
        num_classes: The number of classes.

    Attributes:
        engine, depth, channels, num_classes: The arguments.
        registry: The handle of the registry (dml/network/registry.dml).
        tensors: The tensors of the network, in the order of the registry.
        units: The convolutions with their norms, in the order of the registry; the stem comes first.

    Raises:
        UserError: If there is no network of this depth, or its weights are too large for the engine's heap.
    """

    def __init__(self, engine: Engine, depth: int, channels: int, num_classes: int) -> None:
        self.engine, self.depth, self.channels, self.num_classes = engine, depth, channels, num_classes
        described = engine.run(
            _DESCRIBE,
            {
                "depth": depth,
                "channels": channels,
                "num_classes": num_classes,
                "channel_major": engine.channel_major,
            },
            {"registry": "list", "units": "matrix", "tensors": "matrix", "keys": "string", **_NUMBERS},
        )
        roles = {described[f"number_of_{role.value}"]: role for role in Role}
        self.registry = described["registry"]
        units = engine.to_numpy(described["units"]).astype(int)
        rows = engine.to_numpy(described["tensors"]).astype(int)
        self.tensors = [
            Tensor(name, roles[role], _shape(roles[role], unit, height, width, units), engine.channel_major)
            for name, (role, unit, height, width) in zip(described["keys"].split(), rows, strict=True)
        ]
        self.units = [self._unit(row) for row in units.tolist()]
        self._check_heap()
        self._plans: dict[tuple[int, int, int, bool], JavaObject] = {}

    def _unit(self, row: list[int]) -> Unit:
        """Gives the unit in a row of the registry's "units"."""
        block, kernel, stride, *_, first = row
        conv, norm = (self.tensors[i].name.removesuffix(".weight") for i in (first - 1, first))
        return Unit(conv, norm, block, kernel, stride, shortcut=conv.endswith(".downsample.0"))

    def _check_heap(self) -> None:
        """Refuses weights that would fill the heap: that ends the engine for everybody who uses it."""
        size = sum(8 * math.prod(tensor.shape) for tensor in self.tensors)
        most = self.engine.heap // 2  # predictions need a second copy, with norms folded into it
        if size > most:
            raise UserError(
                f"weights: found {size / 2**30:.3g} GiB for num_classes {self.num_classes} and channels "
                f"{self.channels}, expected at most {most / 2**30:.3g} GiB, half of the engine's heap; lower "
                "these numbers, or open an engine with a larger heap"
            )

    def units_of(self, parts: Iterable[str]) -> int:
        """Counts the units (convolutions with their norms) in parts: "stem", "layer1", ..., "layer4"."""
        prefixes = tuple("conv1." if part == "stem" else f"{part}." for part in parts)
        return sum(t.role == Role.CONV_WEIGHT and t.name.startswith(prefixes) for t in self.tensors)

    def plan(self, n: int, height: int, width: int, backward: bool = False) -> JavaObject:
        """Gives the handle of the plan for images of this size (dml/network/plan.dml), which is made once.

        Args:
            n: The number of images that are computed at a time.
            height, width: The size of the images, in pixels.
            backward: Whether gradients are computed too.

        Raises:
            UserError: If the images are smaller than 32 pixels.
        """
        if min(height, width) < MIN_SIZE:
            raise UserError(
                f"image size: found {height} x {width} pixels, expected at least {MIN_SIZE} x {MIN_SIZE}; "
                "enlarge the images"
            )
        if self.engine.channel_major:
            n, backward = 0, True  # a channel-major plan serves any number of images, and gradients too
        with self.engine.alone():  # a second thread that wants the same plan waits for it
            for with_backward in (backward, True):
                if (n, height, width, with_backward) in self._plans:
                    return self._plans[n, height, width, with_backward]
            self._plans[n, height, width, backward] = made = self._make_plan(n, height, width, backward)
            return made

    def _make_plan(self, n: int, height: int, width: int, backward: bool) -> JavaObject:
        engine = self.engine
        inputs = {"N": n, "H": height, "W": width, "backward": backward}
        if engine.channel_major:
            inputs |= {"registry": self.registry, "gpu": engine.gpu}
            return engine.run(_PLAN, inputs, {"plan": "list"})["plan"]
        found = engine.run(_MATRICES, inputs, {"gathers": "list", "transposes": "list"})
        inputs = {"registry": self.registry, "H": height, "W": width}
        inputs |= {name: engine.compact(matrices) for name, matrices in found.items()}
        return engine.run(_PLAN_OF_MATRICES, inputs, {"plan": "list"})["plan"]

    def to_engine(self, weights: Mapping[str, np.ndarray], source: str = "weights") -> JavaObject:
        """Copies a state dict into the engine, and gives the handle of the list of its tensors.

        Args:
            weights: Arrays or PyTorch tensors by torchvision's names; counters (num_batches_tracked) are left
                out.
            source: What errors call the weights.

        Raises:
            UserError: If a tensor is missing, superfluous, of another shape, or not finite.
        """
        weights = arrays_of(weights, source)
        check_tensors(weights, {tensor.name: tensor.shape for tensor in self.tensors}, source)
        return self.engine.make_list(
            [self.engine.from_numpy(tensor.to_engine(weights[tensor.name])) for tensor in self.tensors]
        )

    def from_engine(self, model: JavaObject, trained_only: bool = False) -> dict[str, np.ndarray]:
        """Gives a model's state dict, in float64; `trained_only` leaves out the running statistics."""
        items = zip(self.tensors, self.engine.list_items(model), strict=True)
        return {
            tensor.name: tensor.from_engine(self.engine.to_numpy(item))
            for tensor, item in items
            if tensor.role.trained or not trained_only
        }


def network_on(engine: Engine | None, depth: int, channels: int, num_classes: int) -> Network:
    """Makes a network on the engine that is given, or on a new one, which is closed if `Network` fails.

    Raises:
        UserError: If `engine` is no engine, or `Network` refuses an argument.
    """
    if not (engine is None or isinstance(engine, Engine)):
        raise UserError(f"engine: found {type(engine).__name__}, expected an Engine; give one, or none")
    own = Engine() if engine is None else None  # started only after the caller has checked its arguments
    try:
        return Network(engine or own, depth, channels, num_classes)
    except BaseException:
        if own is not None:
            own.close()
        raise


def arrays_of(weights: object, source: str) -> Weights:
    """Gives the arrays of a state dict, which holds arrays or PyTorch tensors.

    Raises:
        UserError: If `weights` is no such dict.
    """
    if not isinstance(weights, Mapping) or not all(isinstance(name, str) for name in weights):
        raise UserError(
            f"{source}: found {type(weights).__name__}, expected a dict of arrays with torchvision's names; "
            "give what state_dict() returns"
        )
    return to_arrays(weights, source)


def _shape(role: Role, unit: int, height: int, width: int, units: np.ndarray) -> tuple[int, ...]:
    if role == Role.CONV_WEIGHT:
        _, kernel, _, channels, filters, *_ = units[unit - 1]
        return (int(filters), int(channels), int(kernel), int(kernel))
    return (int(width), int(height)) if role == Role.FC_WEIGHT else (int(height * width),)
