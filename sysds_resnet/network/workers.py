"""Computations on micro-batches, which an engine with several workers shares among them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from py4j.java_gateway import JavaObject

from sysds_resnet.engine import Engine
from sysds_resnet.engine.device import Result
from sysds_resnet.engine.program import Program
from sysds_resnet.engine.values import Value, is_list


@dataclass(frozen=True)
class MicroBatchProgram:
    """A computation on micro-batches, in DML.

    Attributes:
        single: The program for an engine with one worker. It reads the pixels of one micro-batch, a matrix
            `X`.
        shared: The program for an engine with several workers, which compute a micro-batch each at the same
            time. It reads the list `X` of their pixels. It has the outputs of `single`, but for one, in whose
            place it gives the list `parts` of what the workers have computed.
        join: The program that makes this output of `parts`, and of the number `n` of micro-batches.
    """

    single: Program
    shared: Program
    join: Program

    def run(
        self, engine: Engine, pixels: Sequence[JavaObject], inputs: Mapping[str, Value]
    ) -> dict[str, Result]:
        """Computes micro-batches, and gives the outputs of `single` for all of them together.

        Args:
            engine: The engine to compute on.
            pixels: The handles of the micro-batches' pixels, at most as many as the engine has workers.
            inputs: The values of the other variables that the programs read.
        """
        if engine.workers == 1:
            [X] = pixels
            return engine.run(self.single, {"X": X, **inputs})
        images = engine.make_list(pixels)
        results = engine.run(self.shared, {"X": images, **inputs})
        parts = results.pop("parts")
        results |= engine.run(self.join, {"parts": parts, "n": len(pixels)})
        engine.free([images, parts], keep=[value for value in results.values() if is_list(value)])
        return results
