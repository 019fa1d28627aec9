"""The environment of an engine's JVM: this process's, without what would steer the libraries in it.

What OpenMP, oneDNN and OpenBLAS read there is meant for other programs. Some of it ends the JVM
(OMP_STACKSIZE=16k), some changes numbers (ONEDNN_DEFAULT_FPMATH_MODE=BF16), and most costs speed. How many
threads there are is the engine's to say.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence

# Read by OpenMP's run times, oneDNN and OpenBLAS.
_STEERING = ("OMP_", "GOMP_", "KMP_", "ONEDNN_", "DNNL_", "OPENBLAS_", "GOTO_")
# Fill and check memory, to find errors in programs.
_DEBUGGING = ("MALLOC_CHECK_", "MALLOC_PERTURB_")
# Hold oneDNN to older processors' instructions, for results that are the same on all; a run says so.
INSTRUCTION_SETS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
_WITH_BF16 = re.compile(r"ALL|DEFAULT|AVX512_CORE_(BF16|FP16|AMX.*)|AVX10.*", re.IGNORECASE)
# Options for every Java; those of the last one come after the command line's, and win.
JAVA_VARIABLES = ("JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS")
# Ways to say how large the heap is and how it is collected, beside those on the engine's command line.
_HEAP = re.compile(
    r"-Xm[nsx].*|-XX:(Max|Initial|Min)?(Heap|New|RAM)(Size|Percentage|Fraction).*|-XX:\w*Ratio=.*"
    r"|-XX:[+-]Use\w*GC"
)


def jvm_environment(additions: Mapping[str, str], options: Sequence[str] = ()) -> dict[str, str]:
    """The whole environment of a JVM.

    Args:
        additions: What it is to have beside this process's.
        options: The JVM's on its command line, which win over what Java's variables say of the same thing.
    """
    kept = {name: value for name, value in os.environ.items() if name not in dropped()}
    for name in JAVA_VARIABLES:
        if name in kept and (left := _without_ours(kept[name], options)) != kept[name]:
            del kept[name]
            if left:
                kept[name] = left
    return kept | additions


def dropped() -> list[str]:
    """The variables of this process that a JVM does not get."""
    return sorted(
        name
        for name in os.environ
        if (name.startswith(_STEERING) and name not in INSTRUCTION_SETS) or name in _DEBUGGING
    )


def describe_environment() -> str:
    """What the JVM does not get of this process's environment, and what of it Java and oneDNN get."""
    told = []
    if names := dropped():
        told.append(f"the JVM does not get {', '.join(names)}")
    told += [f"{name} is {value}" for name, value in java_options().items()]
    if limit := instruction_limit()[0]:
        told.append(f"{limit} holds oneDNN back; unset it")
    return "; ".join(told) or "nothing that the JVM's libraries would read"


def java_options() -> dict[str, str]:
    """Java's variables that are set in this process."""
    return {name: os.environ[name] for name in JAVA_VARIABLES if os.environ.get(name)}


def instruction_limit() -> tuple[str, bool]:
    """What holds oneDNN to older instructions, as NAME=VALUE, or nothing; and whether it may use bf16's."""
    for name in INSTRUCTION_SETS:
        value = os.environ.get(name, "")
        if value and value.upper() not in ("ALL", "DEFAULT"):
            return f"{name}={value}", bool(_WITH_BF16.fullmatch(value))
    return "", True


def _without_ours(text: str, options: Sequence[str]) -> str:
    """Options of a variable without those that say something about what the command line does."""
    try:
        words = shlex.split(text)
    except ValueError:
        return text
    ours = {_named(option) for option in options}
    left = [word for word in words if not _HEAP.fullmatch(word) and _named(word) not in ours]
    return text if left == words else shlex.join(left)


def _named(option: str) -> str:
    """What an option is about: that of -XX:+Name, -XX:-Name and -XX:Name=1 is -XX:Name."""
    if option.startswith("-XX:"):
        return "-XX:" + re.split("=", option[4:].lstrip("+-"))[0]
    if option.startswith("-D"):
        return option.split("=")[0]
    return option
