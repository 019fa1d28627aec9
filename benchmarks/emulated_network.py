"""Machines on a network, emulated on this one, for benchmarks of what processes send each other.

Each machine is a network namespace with an address of its own. All are connected by a bridge, and what goes
into or out of a machine is held to a bandwidth by a token bucket. Needs root, and the commands ip and tc of
iproute2. Processors and memory are those of this machine, which all of them share.
"""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

CLONE_NEWNET = 0x40000000  # the number of the kind of a namespace, from Linux's sched.h
BRIDGE = "sysds-resnet"
BUCKET = "1mb"  # what may go at once: more than the kernel hands over in one piece


class Machine(NamedTuple):
    """An emulated machine."""

    name: str
    address: str


@contextmanager
def machines(count: int, gigabits: float) -> Iterator[list[Machine]]:
    """Gives machines for a `with` block, whose network carries so many gigabits a second each way."""
    with ExitStack() as stack:
        _run(f"ip link add {BRIDGE} type bridge")
        stack.callback(_run, f"ip link delete {BRIDGE}")
        _run(f"ip link set {BRIDGE} up")
        found = []
        for i in range(count):
            machine = Machine(f"{BRIDGE}-{i}", f"10.213.0.{i + 1}")
            _run(f"ip netns add {machine.name}")
            stack.callback(_run, f"ip netns delete {machine.name}")
            here, there = f"srh{i}", f"srm{i}"
            _run(f"ip link add {here} type veth peer name {there} netns {machine.name}")
            stack.callback(_run, f"ip link delete {here}")  # at once, which deleting the namespace is not
            _run(f"ip link set {here} master {BRIDGE} up")
            _run(f"ip -n {machine.name} address add {machine.address}/16 dev {there}")
            for link in ("lo", there):
                _run(f"ip -n {machine.name} link set {link} up")
            limits = f"tbf rate {gigabits}gbit burst {BUCKET} latency 50ms"
            _run(f"tc qdisc add dev {here} root {limits}")
            _run(f"tc -n {machine.name} qdisc add dev {there} root {limits}")
            found.append(machine)
        yield found


@contextmanager
def inside(machine: Machine | None) -> Iterator[None]:
    """Lets this thread, and threads that it starts, be on a machine's network for a `with` block.

    Args:
        machine: The machine; None for the network of this machine itself.
    """
    if machine is None:
        yield
        return
    with open("/proc/thread-self/ns/net") as before, open(Path("/run/netns") / machine.name) as there:
        _enter(there.fileno())
        try:
            yield
        finally:
            _enter(before.fileno())


def _enter(namespace: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def _run(command: str) -> None:
    subprocess.run(command.split(), check=True)
