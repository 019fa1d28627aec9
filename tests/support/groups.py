"""Groups of processes for tests: processes, or threads of this one, which XGBoost takes for processes."""

import multiprocessing
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from xgboost import collective
from xgboost.core import XGBoostError

from sysds_resnet.training.processes.group import Group, JoinedGroup, join, start_tracker

HOST, PATIENCE = "127.0.0.1", 100


def in_group(size, work):
    """What `work` gives for the group of each of so many threads, which work at the same time."""
    if size == 1:
        return [work(Group())]
    tracker, arguments = start_tracker(size, HOST)

    def member(rank):
        collective.init(**arguments, dmlc_task_id=f"{rank:08}")
        try:
            return work(JoinedGroup(rank, size, HOST, PATIENCE, pytest.fail))
        finally:
            collective.finalize()

    with ThreadPoolExecutor(size) as threads:
        found = list(threads.map(member, range(size)))
    tracker.wait_for()
    return found


def in_processes(size, work):
    """What `work`, which can be pickled, gives for the group of each of so many processes; None if one died.

    They are started anew, so that each may join one group of PyTorch, which a process can do once.
    """
    context = multiprocessing.get_context("spawn")
    tracker, arguments = start_tracker(size, HOST)
    members = []
    for rank in range(size):
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_member, args=(rank, size, arguments, work, sender))
        process.start()
        sender.close()
        members.append((process, receiver))
    found = [_received(receiver) for _, receiver in members]
    for process, _ in members:
        process.join()
    with suppress(XGBoostError):
        tracker.free()
    return found


def _received(receiver):
    with suppress(EOFError):
        return receiver.recv()


def _member(rank, size, arguments, work, sender):
    group = JoinedGroup(rank, size, HOST, PATIENCE, pytest.fail)
    join(group, arguments)
    sender.send(work(group))
    os._exit(0)  # as processes of a run, which do not leave the group
