"""What happens to what is open when its process is forked.

`os.fork` gives the child a copy of everything: pipes, sockets, and objects that end processes and remove
folders when they go. What is open belongs to the process that opened it, so that in the child these must do
nothing, and its copies of pipes must be closed: whoever waits for their end would wait for the child too.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import Protocol

from sysds_resnet.errors import UserError


class Forkable(Protocol):
    """Something open that a fork copies."""

    def disown(self) -> None:
        """Called in the child: lets go of its copies, without a lock, and without a word to others."""


opening = threading.RLock()
"""To be held from before something is opened until `register` knows of it: no fork comes between the two."""

_open: weakref.WeakSet[Forkable] = weakref.WeakSet()


def register(thing: Forkable) -> None:
    """Has `disown` called in every process that is forked from this one."""
    _open.add(thing)


class Opener:
    """The process that opened something, and whether it is still open.

    Args:
        name: What errors call it.
        advice: What to do where it is used in another process.
    """

    def __init__(self, name: str, advice: str) -> None:
        self._name, self._advice, self._pid = name, advice, os.getpid()
        self._closed = False
        self._lock = threading.Lock()

    @property
    def here(self) -> bool:
        """Whether it was opened by this process, not by one that this was forked from."""
        return os.getpid() == self._pid

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._closed

    def check(self) -> None:
        """Checks that it can be used.

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
        """Whether this closes it: not where it is closed already, nor in a process that did not open it."""
        if not self.here:  # before the lock, which another thread may have held when the process was forked
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
