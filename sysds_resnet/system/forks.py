"""The handling of open resources when their process is forked.

`os.fork` gives the child a copy of everything: pipes, sockets, and objects that end processes and remove
folders when they go. A resource belongs to the process that opened it, so that in the child such objects must
do nothing, and the copies of pipes must be closed: whoever waits for their end would wait for the child too.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import Protocol

from sysds_resnet.errors import UserError


class Forkable(Protocol):
    """An open resource that a fork copies."""

    def disown(self) -> None:
        """Lets go of the child's copies, without a lock or a message to others; called in the child."""


opening = threading.RLock()
"""The lock to hold while a resource is opened and given to `register`, so that no fork comes between."""

_open: weakref.WeakSet[Forkable] = weakref.WeakSet()


def register(thing: Forkable) -> None:
    """Has the `disown` of a resource called in every process that is forked from this one."""
    _open.add(thing)


class Opener:
    """The record of which process opened a resource, and of whether it is still open.

    Args:
        name: What errors call the resource.
        advice: What errors say to do if the resource is used in another process.
    """

    def __init__(self, name: str, advice: str) -> None:
        self._name, self._advice, self._pid = name, advice, os.getpid()
        self._closed = False
        self._lock = threading.Lock()

    @property
    def here(self) -> bool:
        """Whether this process opened the resource, not one that this process was forked from."""
        return os.getpid() == self._pid

    @property
    def closed(self) -> bool:
        """Whether the resource was closed."""
        return self._closed

    def check(self) -> None:
        """Checks that this process may use the resource.

        Raises:
            UserError: If it was closed, or opened by a process that this one was forked from.
        """
        if not self.here:
            raise UserError(
                f"{self._name}: found a process forked from the one that opened it, expected that one; "
                f"{self._advice}"
            )
        if self._closed:
            raise UserError(f"{self._name}: found it closed, expected it open; open another one")

    def close(self) -> bool:
        """Marks the resource as closed; gives False if it already was, or another process opened it."""
        if not self.here:  # checked without the lock, which another thread may have held at the fork
            return False
        with self._lock:
            closes, self._closed = not self._closed, True
        return closes


def _in_child() -> None:
    opening.release()
    for thing in list(_open):
        thing.disown()
    _open.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=opening.acquire, after_in_parent=opening.release, after_in_child=_in_child)
