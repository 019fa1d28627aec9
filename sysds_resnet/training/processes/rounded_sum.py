"""Sums in bf16 over processes of several machines, by the collective that PyTorch brings (Gloo)."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from datetime import timedelta

import numpy as np
import psutil

from sysds_resnet.errors import UserError
from sysds_resnet.system.extras import extra
from sysds_resnet.training.processes.group import JoinedGroup


class RoundedSum:
    """Sums of float32 numbers that travel in bf16, half of their bytes.

    XGBoost's collective has no numbers of 16 bits, and Gloo would add them in bf16. So Gloo only brings each
    process what it has to add, which it does in float32, and brings the sums back. A number is rounded twice
    however many processes there are: before it is sent, and as a sum.

    Gloo accepts whoever connects to its port and knows its protocol; the port is open on the address of the
    group alone. The first process also keeps a store there, in which the others find each other.

    Args:
        group: The group, of which all processes do this at the same time, once in their lives.

    Raises:
        UserError: If PyTorch is not installed.
        PeerLost: If another process is gone.
    """

    def __init__(self, group: JoinedGroup) -> None:
        with extra("torch", "--wire bf16"):
            import torch
            import torch.distributed as dist
        self._group, self._torch, self._dist = group, torch, dist
        torch.set_num_threads(1)  # the cores belong to the engine
        listener = socket.create_server((group.address, 0)) if group.rank == 0 else None
        port = listener.getsockname()[1] if listener else 0
        host, port = group.gather(f"{group.address} {port}")[0].split()
        os.environ["GLOO_SOCKET_IFNAME"] = _interface(group.address)
        limit = timedelta(seconds=group.limit)
        with group.waiting(RuntimeError):
            store = dist.TCPStore(
                host,
                int(port),
                group.size,
                is_master=listener is not None,
                timeout=limit,
                master_listen_fd=listener.detach() if listener else None,
            )
            dist.init_process_group(
                "gloo", store=store, rank=group.rank, world_size=group.size, timeout=limit
            )

    def sum(self, values: np.ndarray, parts: Sequence[Sequence[slice]]) -> None:
        """Replaces numbers of each process by their sums over all processes, as `Group.sum`.

        The sum of segment r begins with the numbers of process r, to which those of the next ones are added
        in turn.

        Args:
            values: The numbers, float32.
            parts: The numbers to sum: parts of them one after the other, each with a segment for each
                process, of which the last one is the longest.

        Raises:
            PeerLost: If another process is gone; the numbers are then of no use.
        """
        torch, dist, group = self._torch, self._dist, self._group
        numbers = torch.from_numpy(values)
        longest = max((part[-1].stop - part[-1].start for part in parts), default=0)
        own = torch.zeros(group.size, longest, dtype=torch.bfloat16)
        others = torch.zeros_like(own)
        following = [(group.rank + i) % group.size for i in range(1, group.size)]
        with group.waiting(RuntimeError):
            for segments in parts:
                for to, segment in zip(own, segments, strict=True):
                    to[: segment.stop - segment.start] = numbers[segment]
                dist.all_to_all_single(others, own)
                total = others[group.rank].float()
                for rank in following:
                    total += others[rank]
                dist.all_gather(list(others), total.bfloat16())
                for segment, sums in zip(segments, others, strict=True):
                    numbers[segment] = sums[: segment.stop - segment.start]


def _interface(address: str) -> str:
    """Gives the name of the network interface of this machine that has an address."""
    for name, addresses in psutil.net_if_addrs().items():
        if any(one.address == address for one in addresses):
            return name
    raise UserError(
        f"--wire bf16: found no network interface with the address {address} on {socket.gethostname()}, "
        "expected the address by which Spark or --sum-network finds this machine; correct that"
    )
