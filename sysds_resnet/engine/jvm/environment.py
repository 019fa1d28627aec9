"""The environment of an engine's JVM: this process's, without variables that would steer the JVM's libraries.

The variables that OpenMP, oneDNN and OpenBLAS read are meant for other programs. Some of them end the JVM
(OMP_STACKSIZE=16k), some change numbers (ONEDNN_DEFAULT_FPMATH_MODE=BF16), and most cost speed. The number of
threads is set by the engine.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence

# How the names of variables begin that OpenMP's run times, oneDNN and OpenBLAS read.
_STEERING = ("OMP_", "GOMP_", "KMP_", "ONEDNN_", "DNNL_", "OPENBLAS_", "GOTO_")
# How long the threads of a multiply spin when they have nothing to do, before they sleep. A spinning thread
# takes a core from the JVM's threads; a sleeping one needs time to wake, 0.1 ms on a virtual machine. GCC's
# OpenMP spins for so many turns of a loop, some tenths of a millisecond, and OpenBLAS for 2^4 cycles, hardly.
SPINNING = {"GOMP_SPINCOUNT": "30000", "OPENBLAS_THREAD_TIMEOUT": "4"}
# Variables that have memory filled and checked, to find errors in programs.
_DEBUGGING = ("MALLOC_CHECK_", "MALLOC_PERTURB_")
# Hold oneDNN to the instructions of older processors, for the same results on all; a run reports them.
INSTRUCTION_SETS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
_WITH_BF16 = re.compile(r"ALL|DEFAULT|AVX512_CORE_(BF16|FP16|AMX.*)|AVX10.*", re.IGNORECASE)
# Variables with options for every JVM. Those of the last one come after the command line's, and win.
JAVA_VARIABLES = ("JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS")
# Options that set the heap's size or its garbage collector, even if the engine's command line lacks them.
_HEAP = re.compile(
    r"-Xm[nsx].*|-XX:(Max|Initial|Min)?(Heap|New|RAM)(Size|Percentage|Fraction).*|-XX:\w*Ratio=.*"
    r"|-XX:[+-]Use\w*GC"
)


def jvm_environment(additions: Mapping[str, str], options: Sequence[str] = ()) -> dict[str, str]:
    """Gives the whole environment of a JVM.

    Args:
        additions: The variables that it has beside those of this process.
        options: The options on the JVM's command line, which win over options for the same things in Java's
            variables.
    """
    kept = {name: value for name, value in os.environ.items() if name not in dropped()}
    for name in JAVA_VARIABLES:
        if name in kept and (left := _without_ours(kept[name], options)) != kept[name]:
            del kept[name]
            if left:
                kept[name] = left
    return kept | additions


def dropped() -> list[str]:
    """Gives the names of this process's variables that a JVM does not get."""
    return sorted(
        name
        for name in os.environ
        if (name.startswith(_STEERING) and name not in INSTRUCTION_SETS) or name in _DEBUGGING
    )


def describe_environment() -> str:
    """Describes which of this process's variables the JVM does not get, and which Java and oneDNN read."""
    told = []
    if names := dropped():
        told.append(f"the JVM does not get {', '.join(names)}")
    told += [f"{name} is {value}" for name, value in java_options().items()]
    if limit := instruction_limit()[0]:
        told.append(f"{limit} holds oneDNN back; unset it")
    return "; ".join(told) or "nothing that the JVM's libraries would read"


def java_options() -> dict[str, str]:
    """Gives Java's variables that are set in this process, with their values."""
    return {name: os.environ[name] for name in JAVA_VARIABLES if os.environ.get(name)}


def instruction_limit() -> tuple[str, bool]:
    """Gives what holds oneDNN to older instructions, as NAME=VALUE or "", and whether bf16 is allowed."""
    for name in INSTRUCTION_SETS:
        value = os.environ.get(name, "")
        if value and value.upper() not in ("ALL", "DEFAULT"):
            return f"{name}={value}", bool(_WITH_BF16.fullmatch(value))
    return "", True


def _without_ours(text: str, options: Sequence[str]) -> str:
    """Gives a variable's options without those about the heap or about what the command line sets."""
    try:
        words = shlex.split(text)
    except ValueError:
        return text
    ours = {_named(option) for option in options}
    left = [word for word in words if not _HEAP.fullmatch(word) and _named(word) not in ours]
    return text if left == words else shlex.join(left)


def _named(option: str) -> str:
    """Gives what an option sets: -XX:Name for -XX:+Name, -XX:-Name and -XX:Name=1."""
    if option.startswith("-XX:"):
        return "-XX:" + re.split("=", option[4:].lstrip("+-"))[0]
    if option.startswith("-D"):
        return option.split("=")[0]
    return option
