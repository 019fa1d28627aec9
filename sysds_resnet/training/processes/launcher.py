"""The start of the processes that train together on this machine, and the watch over them."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from sysds_resnet.engine.jvm.memory import default_heap, parse_size
from sysds_resnet.errors import UserError
from sysds_resnet.system.machine import cores
from sysds_resnet.training.processes.child import Child, listen_to, no_answer
from sysds_resnet.training.processes.job import Job, values_given
from sysds_resnet.training.restarting import Restarts
from sysds_resnet.training.settings import TrainSettings


def share_of_machine(settings: TrainSettings, size: int) -> tuple[int, int]:
    """Gives the bytes of heap and the number of threads for each of so many processes of this machine."""
    heap = parse_size(settings.heap) if settings.heap else default_heap() // size
    return heap, max(1, cores() // size)


def jobs(
    settings: TrainSettings, folder: Path, gpus: Sequence[int], changes: list[dict[str, object]]
) -> list[Job]:
    """Divides a run on this machine among processes, and the machine's cores and memory with it.

    Args:
        settings: The settings of the run, with those that were chosen for its data.
        folder: The folder of the run.
        gpus: The numbers of the GPUs, one for each process; empty for the CPU.
        changes: The lines for metrics.jsonl about changes of the micro-batch.

    Raises:
        UserError: If there are not as many GPUs as processes.
    """
    size = settings.processes_on(gpus)
    if gpus and len(gpus) < size:
        raise UserError(
            f"processes: found {size} for {len(gpus)} GPU, expected a GPU for each; leave --processes out, "
            f"or ask for --gpus {size}"
        )
    heap, threads = share_of_machine(settings, size)
    available = sorted(os.sched_getaffinity(0))
    n = len(available)
    return [
        Job(
            rank=rank,
            size=size,
            folder=str(folder),
            values=values_given(settings),
            heap=heap,
            threads=threads,
            gpus=gpus[rank : rank + 1],
            cores=available[rank * n // size : (rank + 1) * n // size] or [available[rank % n]],
            port=settings.sum_port,
            patience=settings.peer_timeout,
            changes=changes if rank == 0 else [],
        )
        for rank in range(size)
    ]


def train_together(
    settings: TrainSettings,
    folder: Path,
    gpus: Sequence[int],
    restarts: Restarts,
    stopped: Callable[[], bool],
) -> bool:
    """Has the processes of a run train it to its end, or until it is stopped; all end with this call.

    Args:
        settings: The settings of the run, with those that were chosen for its data.
        folder: The folder of the run.
        gpus: The numbers of the GPUs, one for each process; empty for the CPU.
        restarts: The decisions about restarts, which are told how far the run is.
        stopped: A function that tells whether the run was asked to stop.

    Returns:
        Whether the run is finished.

    Raises:
        EngineDied: If a process or its JVM is lost, or does not answer.
        OutOfMemory: If the heap of one was full.
        UserError: If something else goes wrong that the user can mend.
    """
    if sys.platform != "linux":
        raise UserError(
            f"processes: found {sys.platform}, expected Linux, where processes can sum gradients; leave "
            "--processes out"
        )
    changes, restarts.changes = restarts.changes, []
    with ExitStack() as opened:
        children = []
        for job in jobs(settings, folder, gpus, changes):
            # the first process speaks for all
            log = None if job.rank == 0 else opened.enter_context(tempfile.TemporaryFile())
            children.append(opened.enter_context(closing(Child(job, log))))
        return _watch(children, restarts, stopped)


def _watch(children: Sequence[Child], restarts: Restarts, stopped: Callable[[], bool]) -> bool:
    """Watches processes until all have ended, and tells whether the run is finished."""
    stopping = False
    while any(child.running for child in children):
        for child, event in listen_to(children):
            _act(child, event, children, restarts)
        if stopped() and not stopping:
            stopping = True
            for child in children:
                child.order(stop=True)
        if any(child.failed for child in children):
            _hear_out(children)
            raise _cause(children)
    for child in children:
        list(child.listen())
        if child.failed:
            raise child.error()
    return bool(children[0].told["finished"])


def _act(child: Child, event: dict[str, Any], children: Sequence[Child], restarts: Restarts) -> None:
    """Does what an event of a process asks for."""
    if "step" in event:
        restarts.reached(event["step"])
    elif "tracker" in event:
        for other in children:
            if other is not child:
                other.order(**event["tracker"])
    elif "ready" in event and all("ready" in other.told for other in children):
        children[0].order(begin=True)  # the others listen, so that its ports are open for a moment only


def _hear_out(children: Sequence[Child]) -> None:
    """Waits for what processes have to say about the failure of one of them."""
    end = time.monotonic() + max(child.grace for child in children)
    while time.monotonic() < end and any(child.running for child in children):
        for _ in listen_to(children):
            pass


def _cause(children: Sequence[Child]) -> Exception:
    """Gives the error that tells why processes have failed: the cause, and not what followed from it."""
    failed = [child for child in children if child.failed]
    causes = [child for child in failed if not {"lost", "waited"} & child.told.keys()]
    late = [child for child in children if "waited" not in child.told]
    waiting = [child for child in children if "waited" in child.told]
    if waiting and late and not causes:
        return no_answer([str(child.rank) for child in late], waiting[0].told["waited"])
    return (causes or failed)[0].error()
