"""The sums over processes of a step's gradients, in two parts: those that are known first, and the others."""

from __future__ import annotations

import numpy as np
from py4j.java_gateway import JavaObject

from sysds_resnet.engine import Engine
from sysds_resnet.engine.transfer import call
from sysds_resnet.training.processes.group import JoinedGroup
from sysds_resnet.training.processes.summing import Summing


class GradientSums:
    """The sums over all processes of a group of the gradients of steps, and of other numbers.

    A step takes the upper gradients, those of the last stage and the final layer, from the engine, sums them,
    and then does so with the lower ones and the other numbers, which travel together.

    Args:
        group: The group, of which all processes do the same.
        engine: The engine of this process.
        gradients: The handle of gradients, for their shapes.
        upper: The handle of the upper ones among them, the end of the list.
        more: The number of other numbers.
        bf16: Whether gradients travel in bf16.

    Raises:
        UserError: If there is no room for the gradients in memory that the processes share, or the package
            that sends them is not installed.
    """

    def __init__(
        self,
        group: JoinedGroup,
        engine: Engine,
        gradients: JavaObject,
        upper: JavaObject,
        more: int,
        bf16: bool,
    ) -> None:
        single = bf16 or engine.multiply.precision != "double"
        self._memory, self._more = engine.map_list(gradients, single, more), more
        self._summing = Summing(group, self._memory, more, bf16)
        self._n_lower = call(gradients, "getLength") - call(upper, "getLength")
        self._boundary = int(self._memory.starts[self._n_lower])

    def take_upper(self, upper: JavaObject) -> None:
        """Copies the upper gradients from their list."""
        self._memory.read(upper, self._n_lower)

    def sum_upper(self) -> None:
        """Sums the upper gradients, in all processes at the same time.

        Raises:
            PeerLost: If another process is gone.
        """
        self._summing.sum(self._boundary, len(self._memory.values))

    def take_lower(self, gradients: JavaObject) -> None:
        """Copies the lower gradients from the list of all."""
        self._memory.read(gradients, n=self._n_lower)

    def sum_lower(self, numbers: np.ndarray) -> np.ndarray:
        """Sums the lower gradients and the other numbers, as `sum_upper`, and gives the sums of the numbers.

        Args:
            numbers: The numbers of this process, of shape (more,).
        """
        self._memory.values[: self._more] = numbers
        self._summing.sum(0, self._boundary)
        return self._memory.values[: self._more]

    def put(self, gradients: JavaObject) -> None:
        """Replaces the gradients in the list of all by their sums."""
        self._memory.write(gradients)
