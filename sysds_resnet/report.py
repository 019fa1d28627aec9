"""What a run tells while it goes on: the terminal, metrics.jsonl, TensorBoard and the curves."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sysds_resnet.display import Display
from sysds_resnet.loop import EpochEvent, StepEvent
from sysds_resnet.metrics import MetricsFile
from sysds_resnet.plots import plot_curves
from sysds_resnet.resources import ResourceSampler
from sysds_resnet.state import State
from sysds_resnet.tensorboard import TensorBoardFile
from sysds_resnet.train_settings import TrainSettings


class RunReport:
    """Takes the events of a run to all who want them; use it in a `with` statement.

    Args:
        settings: Of the run.
        folder: The run folder.
        state: Whose progress says from where on lines are new.
        total_steps: Of the whole run.
    """

    def __init__(self, settings: TrainSettings, folder: Path, state: State, total_steps: int) -> None:
        self._settings, self._folder, self._state = settings, folder, state
        self._engine = state.model.engine
        progress = state.progress
        self._display = Display(total_steps, settings.epochs, progress.step)
        evaluated = progress.step_in_epoch == 0
        self._metrics = MetricsFile(folder, progress.step, evaluated, self.note)
        self._tensorboard = None
        if settings.tensorboard:
            self._tensorboard = TensorBoardFile(folder, progress.step, self.note)
        self._open = ExitStack()

    def __enter__(self) -> RunReport:
        with ExitStack() as stack:
            stack.enter_context(self._display)
            sampler = ResourceSampler(self._write, lambda: self._state.progress.step, self._engine.heap_used)
            stack.enter_context(sampler)
            self._open = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def note(self, text: str) -> None:
        """Prints a line that is to stay."""
        self._display.note(text)

    def add(self, event: StepEvent | EpochEvent) -> None:
        """Reports a step or an epoch."""
        if isinstance(event, EpochEvent):
            self._write("epoch", **asdict(event))
            title = f"{self._settings.model} on {Path(self._settings.dataset).name}"
            try:
                plot_curves(self._folder, f"{title} with {self._settings.optimizer}")
            except OSError as error:
                self.note(f"curves.png not written: {error}")
            self._display.epoch(event)
            return
        self._display.step(event, self._engine.heap_used())
        if event.metrics.skipped:
            self.note(
                f"step {event.step}: update left out, loss {event.metrics.loss:g}, gradient norm "
                f"{event.metrics.grad_norm:g}"
            )
        if event.step % self._settings.log_every == 0 or event.metrics.skipped:
            self._write("step", **_step_line(event))

    def _write(self, event: str, **values: Any) -> None:
        self._metrics.write(event, **values)
        if self._tensorboard is not None:
            self._tensorboard.write(event, **values)


def _step_line(event: StepEvent) -> dict[str, Any]:
    line = {"epoch": event.epoch, "step": event.step, **asdict(event.metrics)}
    if not line.pop("skipped"):
        line["images_per_s"] = event.images / event.seconds
    else:
        line["skipped"] = True
    return {**line, "seconds": event.seconds, "data_wait_s": event.data_wait, **event.measured}
