"""Schedules of the learning rate, which dml/optim/schedule.dml defines."""

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
"""The DML that makes the variable `plan` from the variables of `Schedule.inputs`."""

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
    """A schedule, which has a learning rate for each step; dml/optim/schedule.dml has the formulas.

    Attributes:
        name: The name of the schedule.
        epochs: The number of epochs of the whole run.
        steps_per_epoch: The number of steps in an epoch.
        warmup_epochs: The epochs of the linear warm-up; onecycle has none.
        base_lr: The highest learning rate.
        end_lr: The learning rate at the end of polynomial and cosine.
        power: The exponent of polynomial.
        milestones: The epochs at which multistep multiplies the learning rate by gamma.
        gamma: The factor of multistep at each milestone.
        pct_start: The share of the steps in which the learning rate of onecycle rises.
        div_factor: The ratio of base_lr to onecycle's first learning rate.
        final_div_factor: The ratio of onecycle's first learning rate to its last one.
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
        """The number of steps of the whole run."""
        return self.epochs * self.steps_per_epoch

    @property
    def warmup_steps(self) -> int:
        """The number of steps before the first one with base_lr, by the rule of dml/optim/schedule.dml."""
        return 0 if self.name == "onecycle" else math.floor(self.warmup_epochs * self.steps_per_epoch + 0.5)

    def inputs(self) -> dict[str, Any]:
        """Gives the inputs of a program that contains `PLAN`."""
        return {**vars(self), "epochs": float(self.epochs), "milestones": np.array(self.milestones)[:, None]}

    def rates(self, engine: Engine) -> np.ndarray:
        """Computes the learning rates of all steps, of shape (total_steps,)."""
        inputs = {**self.inputs(), "total_steps": self.total_steps}
        found = engine.run(_RATES, inputs, {"rates": "matrix"})["rates"]
        return engine.to_numpy(found)[:, 0]
