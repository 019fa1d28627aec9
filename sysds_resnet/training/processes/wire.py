"""Gradients on their way between processes: a list of tensors in the engine as one array, and back."""

from __future__ import annotations

import numpy as np
from py4j.java_gateway import JavaObject

from sysds_resnet.engine.program import Program
from sysds_resnet.network.registry import Network

_FLATTEN = Program(
    """
source("dml/cluster/wire.dml") as wire
theta = wire::flatten(gradients)
""",
    {"theta": "matrix"},
)
_UNFLATTEN = Program(
    """
source("dml/cluster/wire.dml") as wire
gradients = wire::unflatten(theta, as.matrix(registry["tensors"]), frozen)
""",
    {"gradients": "list"},
)
_COLUMNS = 1000  # of the matrix `theta`, as dml/cluster/wire.dml makes it


class Wire:
    """The way of gradients out of the engine and back into it.

    Args:
        network: The network whose gradients they are.
        frozen: The number of its units that are not trained.

    Attributes:
        dtype: The type of the numbers: float64 if the engine multiplies in double precision, or else float32.
    """

    def __init__(self, network: Network, frozen: int) -> None:
        self._network, self._frozen = network, frozen
        self._engine = network.engine
        self.dtype = np.dtype("f8" if self._engine.multiply.precision == "double" else "f4")

    def take(self, gradients: JavaObject) -> np.ndarray:
        """Gives the numbers of gradients, of shape (n,), and frees the list in the engine."""
        engine = self._engine
        theta = engine.to_numpy(engine.run(_FLATTEN, {"gradients": gradients})["theta"]).reshape(-1)
        engine.free([gradients], keep=[])
        # where operators are fused with the native helper, each cell holds two numbers
        return theta.view(self.dtype) if engine.fp32 else theta.astype(self.dtype, copy=False)

    def put(self, values: np.ndarray) -> JavaObject:
        """Gives the handle of a list of gradients with the numbers that `take` gave for such a list."""
        theta = values.view("f8") if self._engine.fp32 else values.astype("f8", copy=False)
        inputs = {
            "theta": theta.reshape(-1, _COLUMNS),
            "registry": self._network.registry,
            "frozen": self._frozen,
        }
        return self._engine.run(_UNFLATTEN, inputs)["gradients"]
