"""Schedules of the learning rate, whose definition is dml/optim/schedule.dml."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from sysds_resnet.engine import Engine

ScheduleName = Literal["polynomial", "cosine", "multistep", "constant", "onecycle"]

PLAN = """
plan = schedule::plan(name, epochs, warmup_epochs, base_lr, end_lr, power, milestones, gamma, pct_start,
                      div_factor, final_div_factor)
"""
"""DML that makes `plan` of `Schedule.inputs`."""

_RATES = f"""
source("dml/optim/schedule.dml") as schedule
{PLAN}
while(FALSE){{}}
rates = matrix(0, rows=total_steps, cols=1)
for (step in 1:total_steps) {{
  rates[step,1] = schedule::rate(step - 1, steps_per_epoch, plan)
}}
"""


@dataclass(frozen=True)
class Schedule:
    """A learning rate for each step: see dml/optim/schedule.dml.

    Attributes:
        name: Which.
        epochs: Of the whole run.
        steps_per_epoch: Steps of an epoch.
        warmup_epochs: Of all but onecycle.
        base_lr: Highest rate.
        end_lr: At the end of polynomial and cosine.
        power: Of polynomial.
        milestones: Epochs, of multistep.
        gamma: Of multistep.
        pct_start, div_factor, final_div_factor: Of onecycle.
    """

    name: ScheduleName
    epochs: int
    steps_per_epoch: int
    warmup_epochs: float
    base_lr: float
    end_lr: float
    power: float
    milestones: tuple[float, ...]
    gamma: float
    pct_start: float
    div_factor: float
    final_div_factor: float

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return self.epochs * self.steps_per_epoch

    @property
    def warmup_steps(self) -> int:
        """Steps before the first one with base_lr, as in dml/optim/schedule.dml; onecycle has no warm-up."""
        return 0 if self.name == "onecycle" else math.floor(self.warmup_epochs * self.steps_per_epoch + 0.5)

    def inputs(self) -> dict[str, Any]:
        """Inputs of a program with `PLAN`."""
        return {**vars(self), "epochs": float(self.epochs), "milestones": np.array(self.milestones)[:, None]}

    def rates(self, engine: Engine) -> np.ndarray:
        """The learning rates of all steps, of shape (total_steps,)."""
        inputs = {**self.inputs(), "total_steps": self.total_steps}
        found = engine.run(_RATES, inputs, {"rates": "matrix"})["rates"]
        return engine.to_numpy(found)[:, 0]
