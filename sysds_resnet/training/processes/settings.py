"""The settings of runs that several processes share."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Literal

from pydantic import field_validator

from sysds_resnet.settings.base import Settings
from sysds_resnet.settings.fields import setting


class ProcessSettings(Settings):
    """How many processes share a run, and how they reach each other."""

    processes: int = setting(
        1,
        group="hardware",
        resume="free",
        ge=1,
        description="The number of processes that share each batch, and the machine's cores and memory.",
    )
    wire: Literal["auto", "bf16"] = setting(
        "auto",
        group="hardware",
        description="The precision of gradients between processes: auto is double with --precision double, "
        "else single; bf16 halves what a network carries.",
    )
    peer_timeout: float = setting(
        300.0,
        group="hardware",
        value="SECONDS",
        resume="free",
        matters=False,
        gt=0,
        description="The seconds that processes wait for one of them before all are started anew.",
    )
    sum_network: str | None = setting(
        None,
        group="hardware",
        value="NETWORK",
        resume="free",
        matters=False,
        description="The network, such as 10.1.0.0/16, on which processes of several machines sum gradients.",
    )
    sum_port: int = setting(
        0,
        group="hardware",
        resume="free",
        matters=False,
        ge=0,
        lt=2**16,
        description="The port by which processes find each other; 0 for any.",
    )

    @field_validator("sum_network")
    @classmethod
    def _a_network(cls, text: str | None) -> str | None:
        try:
            return text and str(ip_network(text))
        except ValueError as error:
            raise ValueError("a network such as 10.1.0.0/16") from error
