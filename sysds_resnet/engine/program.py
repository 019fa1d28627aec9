"""DML programs, and where an engine runs them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal["matrix", "list", "double", "int", "string"]

Place = Literal["host", "plain", "device", "workers", "cluster"]
"""Where a program runs.

- "host": in the engine's JVM, where functions of DML are operators of our own (engine/operators/), and all
  is planned once, without knowing sizes.
- "plain": there too, without these operators. The engine plans again what it meets with unknown sizes, as it
  does from the command line.
- "device": on the engine's GPU as far as the engine can; where it has none, on the host.
- "workers": for a program with a loop whose iterations the engine's workers share, threads of the host or
  GPUs. All else in it runs on one thread, or on the first GPU.
- "cluster": for a program with loops whose iterations the executors of the engine's Spark cluster share. All
  else in it runs in the driver, on one thread.
"""


@dataclass(frozen=True)
class Program:
    """A DML program for `Engine.run`.

    Attributes:
        text: DML; `source("dml/...")` finds the files of this package.
        outputs: Names and kinds of the variables that it gives back.
        place: Where it runs.
        held: Whether what it makes on a GPU is freed only at its end, which is faster with long lists.
    """

    text: str
    outputs: Mapping[str, Kind]
    place: Place = "host"
    held: bool = False
