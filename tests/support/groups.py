"""Groups of processes for tests: the threads of this one, each of which XGBoost takes for a process."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from xgboost import collective

from sysds_resnet.training.processes.group import Group, JoinedGroup, start_tracker


def in_group(size, work):
    """What `work` gives for the group of each of so many members, which work at the same time."""
    if size == 1:
        return [work(Group())]
    tracker, arguments = start_tracker(size, "127.0.0.1")

    def member(rank):
        collective.init(**arguments, dmlc_task_id=f"{rank:08}")
        try:
            return work(JoinedGroup(rank, size, 100, pytest.fail))
        finally:
            collective.finalize()

    with ThreadPoolExecutor(size) as threads:
        found = list(threads.map(member, range(size)))
    tracker.wait_for()
    return found
