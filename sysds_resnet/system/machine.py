"""The part of the machine that this process may use: memory and cores, as control groups and limits say."""

from __future__ import annotations

import math
import os
import pwd
import re
import resource
from collections.abc import Iterator
from pathlib import Path

import psutil

PROC = Path("/proc/self")


def substitute_name() -> str | None:
    """Gives a name for this process's user if the system has none, and otherwise None.

    It has none, for example, in containers that run under an arbitrary user number.
    """
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        return f"uid{os.getuid()}"
    return None


def memory_limit() -> int:
    """Gives the number of bytes of memory that this process may use.

    It is the machine's memory, or less if a control group of this process, or one around it, may not have as
    much, or if the size of a process is limited (`ulimit -v`), and with it that of a JVM.
    """
    limits = [psutil.virtual_memory().total]
    for folder in _groups("memory"):
        # the first two are of v2, where `high` slows a process down instead of ending it; the last is of v1
        for name in ("memory.max", "memory.high", "memory.limit_in_bytes"):
            text = _read(folder / name)
            if text.isdigit():
                limits.append(int(text))
    if (size := address_space()) is not None:
        limits.append(size)
    return min(limits)


def address_space() -> int | None:
    """Gives the most bytes of a process's address space (`ulimit -v`); None without such a limit."""
    size, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if size == resource.RLIM_INFINITY else size


def cores() -> int:
    """Gives the number of cores that this process may use.

    They are the cores that it may run on, or fewer if control groups limit its time; a part of a core counts
    as one, as it does for Java.
    """
    limits = [len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1]
    for folder in _groups("cpu"):
        quota, _, period = _read(folder / "cpu.max").partition(" ")
        if not quota:
            quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
        if quota.isdigit() and period.isdigit() and int(period):
            limits.append(max(1, math.ceil(int(quota) / int(period))))
    return min(limits)


def _groups(controller: str) -> Iterator[Path]:
    """Gives the folders of the control groups of this process, from its own out to the outermost one.

    Args:
        controller: "memory" or "cpu". In v1 it has a hierarchy of its own; in v2 there is one for all.
    """
    own = {}
    for line in _read(PROC / "cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        for name in controllers.split(","):  # the field is empty for v2
            own[name] = path
    for line in _read(PROC / "mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        _, _, _, root, mount, *_ = before.split(" ")
        kind, _, options = after.split(" ", 2)
        name = {"cgroup2": "", "cgroup": controller}.get(kind)
        if name is None or name not in own or (name and controller not in options.split(",")):
            continue
        # As in a container, only a part of the hierarchy may be mounted, and the group may lie outside of it.
        folder = Path(_unescape(mount))
        inside = os.path.relpath(own[name], _unescape(root))
        parts = [] if inside.startswith("..") else [part for part in inside.split("/") if part != "."]
        while parts:
            yield folder.joinpath(*parts)
            parts.pop()
        yield folder


def _unescape(path: str) -> str:
    """Decodes a path from mountinfo, where a space is written as \\040."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), path)


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
