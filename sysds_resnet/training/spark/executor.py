"""The tasks of a training run in the executors of a Spark cluster, each of which has one of its processes.

All tasks are of one barrier stage: Spark starts them together, and ends all of them when one fails.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from ipaddress import ip_address, ip_network
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from sysds_resnet.errors import OutOfMemory, UserError
from sysds_resnet.training.processes.child import Child, listen_to, no_answer
from sysds_resnet.training.processes.job import Job
from sysds_resnet.training.run_folder import OUTPUT_FILE

if TYPE_CHECKING:
    from pyspark import BarrierTaskContext

STOP_FILE = "stop"
"""The file in the run folder by which the driver asks all processes to stop."""
WAITING_FOLDER = "waiting"
"""The folder in the run folder where each process has a file that has waited for another one in vain."""


def train_part(job: Job, gpu: bool, _: Iterable[int]) -> Iterator[bool]:
    """Does the part of a task in a run, and gives whether the run is finished.

    Args:
        job: The job of the first process; without a host, it listens on an address of its machine.
        gpu: Whether each process computes on a GPU.

    Raises:
        UserError: If the process of this task fails, or another one.
    """
    from pyspark import BarrierTaskContext

    context = BarrierTaskContext.get()
    rank, folder = _rank(context), Path(job.folder)
    if not folder.is_dir():
        raise UserError(
            f"{folder}: found no such folder on {socket.gethostname()}, expected the run folder on all "
            "machines of the cluster; choose an --out that they share"
        )
    job = replace(
        job,
        rank=rank,
        host=job.host or _address(context, job.values.get("sum_network")),
        gpus=[_gpu(context)] if gpu else [],
        changes=job.changes if rank == 0 else [],
    )
    with ExitStack() as opened:
        log = open(folder / OUTPUT_FILE, "ab") if rank == 0 else tempfile.TemporaryFile()  # noqa: SIM115
        opened.enter_context(log)
        # where this process found the package, its own will find it, too
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        child = opened.enter_context(closing(Child(job, log, environment)))
        _wait_for(child, "ready")
        context.barrier()
        if rank == 0:
            child.order(begin=True)
            found = context.allGather(json.dumps(_wait_for(child, "tracker")))
        else:
            found = context.allGather("")
            child.order(**json.loads(found[0]))
        _watch(child, folder, _machines(context))
        yield bool(child.told["finished"])


def _watch(child: Child, folder: Path, machines: Sequence[str]) -> None:
    """Waits for the end of the process, and asks it to stop if a file in the run folder says so."""
    stopping = False
    while child.running and not child.failed:
        list(listen_to([child]))
        if not stopping and (folder / STOP_FILE).exists():
            stopping = True
            child.order(stop=True)
    list(child.listen())
    if child.failed:
        error = child.error()
        if "waited" in child.told:
            error = _silent(child, folder / WAITING_FOLDER, machines) or error
        elif "lost" in child.told:
            time.sleep(child.grace)  # Spark ends this task, if the one with the cause has failed
        if isinstance(error, OutOfMemory):
            error = OutOfMemory(str(error).replace("--heap", "--executor-memory"))
        raise error


def _silent(child: Child, folder: Path, machines: Sequence[str]) -> Exception | None:
    """Gives the error of the processes that this one has waited for; None if all of them wait.

    Each process that has waited says so by a file in the folder, which the tasks of all machines see.
    """
    folder.mkdir(exist_ok=True)
    (folder / str(child.rank)).touch()
    time.sleep(child.grace)  # for the files of the others
    waiting = {int(path.name) for path in folder.iterdir()}
    silent = [f"{rank} on {machine}" for rank, machine in enumerate(machines) if rank not in waiting]
    return no_answer(silent, child.told["waited"]) if silent else None


def _wait_for(child: Child, kind: str) -> Any:
    """Waits for an event of the process, and gives it."""
    while kind not in child.told:
        list(listen_to([child]))
        if child.failed:
            raise child.error()
    return child.told[kind]


def _rank(context: BarrierTaskContext) -> int:
    """Gives the number of this task's process.

    Processes of a machine have numbers in a row, so that they are neighbours in the ring by which all sum:
    a machine's network then carries a sum once, not once for each process. The first task has number 0.
    """
    return _order(_hosts(context)).index(context.partitionId())


def _machines(context: BarrierTaskContext) -> list[str]:
    """Gives the machine of each process, as Spark knows it."""
    hosts = _hosts(context)
    return [hosts[task] for task in _order(hosts)]


def _order(hosts: Sequence[str]) -> list[int]:
    """Gives the task of each process from the machine of each task."""
    return sorted(range(len(hosts)), key=lambda task: hosts.index(hosts[task]))


def _hosts(context: BarrierTaskContext) -> list[str]:
    """Gives the machine of each task, as Spark knows it."""
    return [info.address.rpartition(":")[0] for info in context.getTaskInfos()]


def _address(context: BarrierTaskContext, network: str | None) -> str:
    """Gives an address of this machine in a network, or else the one that Spark knows it by."""
    if network is not None:
        for one in chain.from_iterable(psutil.net_if_addrs().values()):
            if one.family == socket.AF_INET and ip_address(one.address) in ip_network(network):
                return one.address
        raise UserError(
            f"sum_network: found no address in {network} on {socket.gethostname()}, expected one on each "
            "machine; correct --sum-network"
        )
    return socket.gethostbyname(_hosts(context)[context.partitionId()])


def _gpu(context: BarrierTaskContext) -> int:
    """Gives the number of this task's GPU: the one that Spark assigned, or one for each task of a machine."""
    assigned = context.resources().get("gpu")
    if assigned is not None:
        return int(assigned.addresses[0])
    hosts = _hosts(context)
    return hosts[: context.partitionId()].count(hosts[context.partitionId()])
