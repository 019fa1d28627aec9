"""Processes that sum together, for benchmarks: on this machine's network, or each on an emulated machine."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from emulated_network import Machine, inside
from xgboost import collective
from xgboost.core import XGBoostError

from sysds_resnet.training.processes.group import RANK_DIGITS, JoinedGroup, start_tracker

PATIENCE = 600  # seconds
LOOPBACK = "127.0.0.1"
Found = TypeVar("Found")


def together(
    work: Callable[[JoinedGroup], Found], size: int, machines: Sequence[Machine] | None = None
) -> list[Found]:
    """Gives what `work` gives in each of so many new processes, which form a group.

    Args:
        work: The work, which can be pickled.
        size: The number of processes.
        machines: The emulated machine of each process; None for the network of this machine.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["sysds_resnet.training.processes.group", "xgboost"])
    places = machines or [None] * size
    with inside(places[0]):
        tracker, arguments = start_tracker(size, _address(places[0]))
    with context.Pool(size) as pool:
        members = partial(_member, work, places, arguments)
        found = pool.map_async(members, range(size), chunksize=1).get(PATIENCE)
    with suppress(XGBoostError):  # which it raises where processes have ended without a word
        tracker.free()
    return found


def _member(
    work: Callable[[JoinedGroup], Found],
    places: Sequence[Machine | None],
    tracker: dict[str, Any],
    rank: int,
) -> Found:
    """Joins the group on its machine, and does the work."""
    with inside(places[rank]):
        collective.init(**tracker, dmlc_task_id=f"{rank:0{RANK_DIGITS}}")
        found = work(JoinedGroup(rank, len(places), _address(places[rank]), PATIENCE, print))
        collective.finalize()
    return found


def _address(place: Machine | None) -> str:
    return place.address if place else LOOPBACK
