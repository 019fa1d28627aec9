"""A group of processes that train together, and the sums between them by XGBoost's collective."""

from __future__ import annotations

import os
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from math import ceil
from typing import Any

import numpy as np

from sysds_resnet.errors import UserError, one_line

MESSAGE = 2**20  # bytes of the largest message: few enough for a processor's cache, many for a network
RANK_DIGITS = 8  # in the names by which the tracker puts processes in order


class PeerLost(UserError):
    """The loss of another process of the group, or of the network to it, in the middle of a sum."""


class Group:
    """A group of one process, which has nothing to share; base of `JoinedGroup`.

    Attributes:
        rank: The number of this process in the group, from 0.
        size: The number of processes.
    """

    rank = 0
    size = 1

    def sum(self, values: np.ndarray) -> None:
        """Replaces the numbers of an array by their sums over the processes, which all give as many.

        All processes get the same bits, which depend on the values and on the number of processes alone.

        Args:
            values: The numbers of this process, float32, float64, int64 or uint8 of shape (n,).

        Raises:
            PeerLost: If another process is gone; the array then holds sums and values of this process.
        """

    def gather(self, text: str) -> list[str]:
        """Gives the texts of all processes, in the order of their ranks."""
        return [text]


class JoinedGroup(Group):
    """A group of several processes, which this process has joined (`join`); only one thread may use it.

    Args:
        rank, size: The number of this process, and of all of them.
        address: The address of its machine on the network between them.
        patience: The seconds to wait for the others in a sum.
        tired: A function that another thread calls when they have passed, with the seconds.

    Attributes:
        address: The address.
        limit: The seconds after which a collective may give up by itself. They are more than the patience,
            since whoever is told that a process is tired of waiting can tell who is missing.
    """

    def __init__(
        self, rank: int, size: int, address: str, patience: float, tired: Callable[[float], object]
    ) -> None:
        self.rank, self.size, self.address = rank, size, address
        self.limit = ceil(patience) + 60
        self._patience, self._tired = patience, tired

    def sum(self, values: np.ndarray) -> None:
        """Sums arrays, as `Group.sum` describes."""
        from xgboost import collective
        from xgboost.core import XGBoostError

        length = self.size * MESSAGE // values.itemsize
        with self.waiting(XGBoostError):
            for start in range(0, len(values), length):
                part = values[start : start + length]
                part[:] = collective.allreduce(part, collective.Op.SUM)

    @contextmanager
    def waiting(self, failure: type[Exception]) -> Iterator[None]:
        """Watches over the messages of a `with` block: their time, and whether the other processes live.

        Args:
            failure: The class of the errors by which a collective tells that another process is gone.

        Raises:
            PeerLost: In the place of such an error.
        """
        waiting = threading.Timer(self._patience, self._tired, [self._patience])
        waiting.daemon = True
        waiting.start()
        try:
            yield
        except failure as error:
            raise PeerLost(
                f"process {self.rank}: found another process of the run gone in the middle of a sum "
                f"({_cause(error)}), expected all {self.size} to take part; see what ended it"
            ) from error
        finally:
            waiting.cancel()

    def gather(self, text: str) -> list[str]:
        """Gives the texts of all processes, as `Group.gather` describes."""
        own = np.frombuffer(text.encode(), np.uint8)
        lengths = np.zeros(self.size, np.int64)
        lengths[self.rank] = len(own)
        self.sum(lengths)
        ends = np.cumsum(lengths)
        joined = np.zeros(max(ends[-1], 1), np.uint8)
        joined[ends[self.rank] - len(own) : ends[self.rank]] = own
        self.sum(joined)
        data = joined.tobytes()
        return [data[end - n : end].decode() for end, n in zip(ends, lengths, strict=True)]


def start_tracker(size: int, host: str, port: int = 0) -> tuple[Any, dict[str, Any]]:
    """Starts the tracker, by which the processes of a group find each other.

    Args:
        size: The number of processes.
        host: The address of this machine that the other processes reach it by, on which it listens.
        port: The port to listen on; 0 for any.

    Returns:
        The tracker, to be kept as long as the group, and the arguments of `join` for each process.

    Raises:
        UserError: If it cannot listen there.
    """
    from xgboost.core import XGBoostError
    from xgboost.tracker import RabitTracker

    try:
        tracker = RabitTracker(n_workers=size, host_ip=host, port=port, sortby="task")
        tracker.start()
    except (XGBoostError, OSError) as error:
        raise UserError(
            f"processes: found no way to listen on {host}{f', port {port}' if port else ''} "
            f"({_cause(error)}), expected an address of this machine and a free port; choose others"
        ) from error
    return tracker, tracker.worker_args()


def join(group: JoinedGroup, tracker: dict[str, Any]) -> None:
    """Joins a group, once all of its processes do so, for as long as this process lives.

    XGBoost binds the ports of its workers to all addresses of the machine. Those for data are closed as soon
    as the group has been formed. The one that waits for ever, for the news that another worker has failed,
    and then ends the process without a word, is shut here: whoever starts the processes watches them.
    https://github.com/dmlc/xgboost/blob/v3.2.0/src/collective/comm.cc

    Args:
        group: The group, and what this process is in it.
        tracker: What `start_tracker` gives for the processes.

    Raises:
        PeerLost: If the others do not come.
    """
    from xgboost import collective
    from xgboost.core import XGBoostError

    before = _listening()
    try:
        with redirect_stdout(StringIO()):  # the tracker prints who is who
            name = f"{group.rank:0{RANK_DIGITS}}"
            collective.init(**tracker, dmlc_task_id=name, dmlc_timeout=group.limit)
    except XGBoostError as error:
        raise PeerLost(
            f"process {group.rank}: found no way into the group of {group.size} processes "
            f"({_cause(error)}), expected all of them to join; see what ended the others, or whether a "
            "firewall is between them"
        ) from error
    for number in _listening() - before:
        with socket.socket(fileno=os.dup(number)) as listener:
            listener.shutdown(socket.SHUT_RDWR)


def _listening() -> set[int]:
    """Gives the numbers of this process's files that are sockets on which it listens by TCP."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        number = int(name)
        try:
            if stat.S_ISSOCK(os.fstat(number).st_mode):
                with socket.socket(fileno=os.dup(number)) as one:
                    inet = one.family in (socket.AF_INET, socket.AF_INET6)
                    if inet and one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                        found.add(number)
        except OSError:  # closed meanwhile, as is the one that lists the folder
            continue
    return found


def _cause(error: Exception) -> str:
    """Gives the first line of a collective's error that says something, without the place in its source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = [line for line in lines if not line.startswith(("Stack trace", "[bt]", "- Stack"))]
    return one_line(RuntimeError(said[-1] if said else type(error).__name__))
