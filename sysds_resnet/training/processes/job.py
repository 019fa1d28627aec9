"""The job of one of the processes that train together, which it is given as a line of JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sysds_resnet.engine.gpu.cuda import choose_gpus
from sysds_resnet.settings.command_line import build
from sysds_resnet.training.settings import TrainSettings


@dataclass(frozen=True)
class Job:
    """What a process of a run is to do.

    Attributes:
        rank: The number of the process, from 0; process 0 reports and saves.
        size: The number of processes.
        folder: The folder of the run, which all processes see.
        values: The settings of the run that were given or chosen, by name.
        heap: The size of the heap of the process's JVM in bytes.
        threads: The number of threads that it computes with, and by default of its readers of images.
        gpus: The number of its GPU, in a list; empty for the CPU.
        cores: The numbers of the cores that it may run on; empty for all.
        host: The address of its machine on which it listens for the others; empty for one in the network
            that the settings name, or that other machines know its machine by.
        port: The port there by which the others find process 0; 0 for any.
        patience: The seconds to wait for another process.
        changes: The lines for metrics.jsonl about changes of the micro-batch (`Restarts.changes`).
    """

    rank: int
    size: int
    folder: str
    values: dict[str, Any]
    heap: int
    threads: int
    gpus: Sequence[int] = ()
    cores: Sequence[int] = ()
    host: str = "127.0.0.1"
    port: int = 0
    patience: float = 300.0
    changes: list[dict[str, object]] = field(default_factory=list)

    @classmethod
    def from_line(cls, line: str) -> Job:
        """Reads what `to_line` has written."""
        return cls(**json.loads(line))

    def to_line(self) -> str:
        """Gives the job as a line of JSON."""
        return json.dumps(asdict(self))

    def settings(self) -> TrainSettings:
        """Gives the settings of the run, with those of this process's share of the machine."""
        settings = build(TrainSettings, self.values)
        return settings.model_copy(update={"workers": settings.workers or self.threads})

    def engine_options(self, settings: TrainSettings) -> dict[str, Any]:
        """Gives the arguments for the engine of this process.

        Raises:
            UserError: If its GPU is not there.
        """
        gpus = choose_gpus(f"cuda:{','.join(map(str, self.gpus))}") if self.gpus else ()
        return {
            "precision": settings.precision,
            "blas": settings.blas,
            "heap": self.heap,
            "threads": self.threads,
            "gpus": gpus,
            "logs": Path(self.folder) if self.rank == 0 else None,
        }


def values_given(settings: TrainSettings) -> dict[str, Any]:
    """Gives the settings that were given or chosen, for `Job.values`."""
    return settings.model_dump(mode="json", include=settings.model_fields_set)
