"""DML programs, and where an engine runs them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal["matrix", "list", "double", "int", "string"]

Place = Literal["host", "plain", "device", "workers"]
"""The place where a program runs.

- "host": in the engine's JVM. If the engine fuses operators, some DML functions run as operators of this
  package (engine/operators/), and everything is planned once, without knowing sizes.
- "plain": in the engine's JVM, without these operators. If the engine has no GPU, it plans again, while the
  program runs, what it planned with unknown sizes, as it does from the command line.
- "device": on the engine's GPU, as far as the engine can; as "host" if the engine has no GPU.
- "workers": for a program with a loop whose iterations the engine's workers share, threads of the host or
  GPUs. The rest of the program runs on one thread, or on the first GPU.
"""


@dataclass(frozen=True)
class Program:
    """A DML program for `Engine.run`.

    Attributes:
        text: The DML code, in which `source("dml/...")` finds the files of this package.
        outputs: The names and kinds of the variables that the program gives back.
        place: Where the program runs; by default on the host.
        held: Whether what the program makes on a GPU is freed only at its end, which is faster with long
            lists.
    """

    text: str
    outputs: Mapping[str, Kind]
    place: Place = "host"
    held: bool = False
