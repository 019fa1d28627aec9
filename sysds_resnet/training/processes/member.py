"""One of the processes that train together: python -m sysds_resnet.training.processes.member FILE.

Its standard input brings lines: first its job, later orders, each as JSON; it ends when they end. FILE is the
number of an open file for what it has to tell whoever started it, as JSON too (`Child` lists the events).
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import threading
import traceback
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from sysds_resnet.batches.stream import raise_error
from sysds_resnet.errors import NotFinite, UserError
from sysds_resnet.images import Dataset
from sysds_resnet.report.callbacks import Callbacks
from sysds_resnet.settings.command_line import printing_warnings
from sysds_resnet.system.console import settle, warn
from sysds_resnet.training.processes.group import Group, JoinedGroup, PeerLost, join, start_tracker
from sysds_resnet.training.processes.job import Job
from sysds_resnet.training.restarting import Restarts
from sysds_resnet.training.session import Session, callbacks_of
from sysds_resnet.training.settings import TrainSettings
from sysds_resnet.training.start import open_engine, open_sets
from sysds_resnet.training.trainer import Trainer

PR_SET_PDEATHSIG = 1  # the number of this option of Linux's prctl


class Member:
    """This process's connection to the one that started it.

    Args:
        events: The number of the open file for what this process has to tell.

    Attributes:
        job: What this process is to do.
        orders: The orders that have come, but for the one to stop.
        tracker: What keeps the group together, in its first process.
    """

    def __init__(self, events: int) -> None:
        self._events = os.fdopen(events, "w", buffering=1)
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self.job = Job.from_line(sys.stdin.readline())
        self.orders: SimpleQueue[dict[str, Any]] = SimpleQueue()
        self.tracker: object = None
        threading.Thread(target=self._listen, daemon=True).start()

    def tell(self, **event: object) -> None:
        """Tells the one that started this process of an event."""
        with self._lock:
            self._events.write(f"{json.dumps(event)}\n")

    def stopped(self) -> bool:
        """Tells whether the order to stop has come."""
        return self._stop.is_set()

    def _listen(self) -> None:
        for line in sys.stdin:
            order = json.loads(line)
            if "stop" in order:
                self._stop.set()
            else:
                self.orders.put(order)
        os._exit(1)  # the one that started this process is gone


class _Restarts(Restarts):
    """The restarts of the run, which the launcher decides on: it is told how far the run is."""

    def __init__(self, folder: Path, member: Member) -> None:
        super().__init__(folder)
        self._member = member
        self.changes = list(member.job.changes)

    def reached(self, step: int) -> None:
        self._member.tell(step=step)


def work(member: Member) -> None:
    """Does the job of this process, as soon as all processes of the group are there.

    Raises:
        UserError: If something goes wrong that the user can mend.
    """
    import xgboost  # noqa: F401  not at the top, and before the others wait: it takes a second

    job = member.job
    if job.cores:
        os.sched_setaffinity(0, job.cores)
    member.tell(ready=True)
    order = member.orders.get()
    if job.rank == 0:
        member.tracker, order = start_tracker(job.size, job.host, job.port)
        member.tell(tracker=order)
    group = JoinedGroup(
        job.rank, job.size, job.host, job.patience, lambda seconds: member.tell(waited=seconds)
    )
    join(group, order)
    settings, sets, _ = open_sets(job.settings())
    member.tell(finished=_train(member, settings, sets, group))


def _train(member: Member, settings: TrainSettings, sets: list[Dataset], group: Group) -> bool:
    job = member.job
    folder, options = Path(job.folder), job.engine_options(settings)
    if group.rank > 0:
        with open_engine(settings, options, sets[0], group.size) as engine:
            trainer = Trainer(settings, folder, sets, engine, group)
            try:
                for _ in trainer.events(member.stopped, raise_error):
                    pass
            except NotFinite:  # the first process tells of it, once it has saved the state
                return False
        return True
    callbacks = Callbacks(callbacks_of(settings), warn)
    restarts, finished = _Restarts(folder, member), False
    try:
        session = Session(settings, folder, sets, restarts, member.stopped, callbacks, group, options)
        finished = session.run()
    finally:
        callbacks.end(finished)
    return finished


def _die_with_parent() -> None:
    """Has the system kill this process with the one that started it, even if it is stopped (SIGSTOP)."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def main(argv: list[str]) -> None:
    """Runs the process, and ends it with exit code 0, or with 2 after it has told of an error."""
    _die_with_parent()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the launcher gets them, and has this process stop
    # or PyTorch, which carries gradients in bf16, warns of addresses without a name
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    member, code = Member(int(argv[0])), 2
    try:
        with printing_warnings():
            work(member)
        code = 0
    except PeerLost as error:
        member.tell(lost=str(error))
    except UserError as error:
        member.tell(error=str(error), kind=type(error).__name__)
    except BaseException:
        member.tell(error=traceback.format_exc(), kind="failure")
    settle()
    os._exit(code)  # at once: the collective, which nobody closes, would look for the other processes


if __name__ == "__main__":
    main(sys.argv[1:])
