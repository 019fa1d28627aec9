"""The reasons why a JVM has ended, from its exit code, its log, and its crash file."""

from __future__ import annotations

import re
import signal
from pathlib import Path

from sysds_resnet.errors import EngineDied, OutOfMemory, UserError
from sysds_resnet.system.redaction import redacted_text

LOG_HEADER = "--- a JVM begins\n"  # separates JVMs in a log that several write to, one after the other
OUT_OF_MEMORY = 3  # the exit code of a JVM with ExitOnOutOfMemoryError
# Java's out-of-memory errors that smaller micro-batches avoid; others are about threads and classes.
_OF_THE_HEAP = ("Java heap space", "GC overhead limit exceeded", "Requested array size exceeds VM limit")
# Lines that every JVM with SystemDS and Hadoop writes, and lines that mean nothing without those before them.
_NOISE = re.compile(
    r"incubator|NativeCodeLoader|Picked up [A-Z_]*OPTIONS|^SLF4J|^log4j:|^WARNING: |\bWARN\b"
    r"|Setting default log level|To adjust logging level|Using Spark's default log4j"
    r"|^at [\w.$/<>]+\(|^\.\.\. \d+ (more|common frames)|^#?$|\bINFO\b"
    r"|^Error: (Could not create the Java|A fatal exception)"
)
# Lines that say why something ended, rather than where.
_CAUSE = re.compile(r"^(Caused by: |Exception in |Error: |.*\b\w+(Error|Exception): )")
_CRASHES = {signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE}


def explain_death(code: int | None, heap: int, log: Path, crash: Path | None) -> UserError:
    """Gives the error to raise for a JVM that has ended.

    Args:
        code: The JVM's exit code, negative for a signal as in `subprocess`; None if it is not known.
        heap: The size of the JVM's heap in bytes.
        log: The file with what the JVM wrote to its standard error.
        crash: The file that the JVM wrote when it crashed (hs_err_*.log), or None.

    Returns:
        `OutOfMemory` if the heap was full, otherwise `EngineDied`.
    """
    words = last_words(log)
    if code == OUT_OF_MEMORY:
        kind = re.search(r"OutOfMemoryError: (.+)", words)
        if kind is None or kind[1].startswith(_OF_THE_HEAP):
            return OutOfMemory(
                f"JVM: found its heap of {heap / 2**30:.1f} GiB full, expected enough for "
                "the images computed at a time; give it more with --heap or lower --micro-batch"
            )
    ended = f"JVM: it ended with code {'that only spark-submit knows' if code is None else code}"
    number = _signal(code)
    if number is not None:
        ended += f" ({number.name})"
    if number == signal.SIGKILL:
        return EngineDied(
            f"{ended}: the system killed it, most likely because the machine's memory ran out, as the "
            "kernel's log (dmesg) says then; lower --heap or --workers, or end other programs"
        )
    if crash is not None:
        return EngineDied(f"{ended}: {_of_crash(crash)}")
    if number in _CRASHES:
        return EngineDied(f"{ended}: it crashed ({words}); check the machine's memory, or try --blas none")
    if number is not None:
        return EngineDied(f"{ended}: something ended it from outside ({words}); see who did")
    return EngineDied(f"{ended} ({words}); run the command again with --debug and report what it says")


def last_words(log: Path) -> str:
    """Gives the line of a JVM's log that says best why it ended: the last cause, or else the last line.

    Warnings of Hadoop and lines of stack traces do not count, and secrets are hidden.
    """
    try:
        text = log.read_text(errors="replace").rpartition(LOG_HEADER)[2]
    except OSError:
        return "its log cannot be read"
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if not _NOISE.search(line)]
    causes = [line for line in lines if _CAUSE.search(line)]
    return redacted_text((causes or lines or ["it said nothing"])[-1])


def _signal(code: int | None) -> signal.Signals | None:
    """Gives the signal that ended a process, even if a shell or the JVM itself made an exit code of it."""
    number = -code if code is not None and code < 0 else (code or 0) - 128
    try:
        return signal.Signals(number)
    except ValueError:
        return None


def _of_crash(path: Path) -> str:
    """Says what caused a crash, as the crash file has it, and what to do about it."""
    try:
        text = path.read_text(errors="replace")
    except OSError:
        text = ""
    memory = re.search(r"^# (Native memory allocation .*|Out of Memory Error.*)$", text, re.MULTILINE)
    if memory or "insufficient memory for the Java Runtime" in text:
        failed = f" ({' '.join(memory[1].split())})" if memory else ""
        return f"the system gave it no more memory{failed}; lower --heap or --workers, or end other programs"
    frame = re.search(r"^# Problematic frame:\n# (.+)$", text, re.MULTILINE)
    where = f" in {' '.join(frame[1].split())}" if frame else ""
    return f"it crashed{where}; see {path}, and try --blas none if it goes on"
