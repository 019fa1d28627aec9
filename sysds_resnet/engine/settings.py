"""The settings of the engine that a command starts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sysds_resnet.engine.gpu.cuda import DEVICE, GPUS, choose_gpus, chosen_device
from sysds_resnet.engine.jvm.memory import parse_size
from sysds_resnet.engine.jvm.multiply import Blas, Precision
from sysds_resnet.settings.base import Settings
from sysds_resnet.settings.fields import setting


class EngineSettings(Settings):
    """Settings of commands that compute."""

    precision: Precision = setting(
        "single",
        group="hardware",
        common=True,
        description="Precision of matrix multiplies: double, single, bf16, or tf32 on GPUs; on CPUs, all "
        "else is double.",
    )
    device: str = setting(
        "cpu", group="hardware", common=True, value="DEVICE", resume="free", description=DEVICE
    )
    gpus: int | None = setting(None, group="hardware", resume="free", ge=1, description=GPUS)
    blas: Blas = setting(
        "auto",
        group="hardware",
        description="Library for matrix multiplies: auto for the fastest, openblas, or none for plain Java.",
    )
    heap: str | None = setting(
        None,
        group="hardware",
        value="SIZE",
        resume="free",
        matters=False,
        description="Size up to which the JVM's heap may grow, such as 12g; by default half of the memory.",
    )

    def engine_options(self, choose: Callable[..., tuple[int, ...]] = choose_gpus) -> dict[str, Any]:
        """Gives the arguments of `Engine` that these settings ask for, by name.

        Args:
            choose: A function that gives the numbers of the GPUs for a device and a count of GPUs; by default
                `choose_gpus`.
        """
        heap = self.heap and parse_size(self.heap)
        gpus = choose(*chosen_device(self.device, self.gpus))
        return {"precision": self.precision, "heap": heap, "blas": self.blas, "gpus": gpus}
