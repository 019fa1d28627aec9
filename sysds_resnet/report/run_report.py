"""The reports of a run while it goes on: the terminal, metrics.jsonl, the curves, and other tools.

None of them can end a run: what fails is noted once, and tried again with the next event.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sysds_resnet.report.callbacks import Callbacks
from sysds_resnet.report.display import Display
from sysds_resnet.report.events import EpochEvent, StepEvent
from sysds_resnet.report.guard import Guard
from sysds_resnet.report.metrics import MetricsFile
from sysds_resnet.report.pictures import plot_curves
from sysds_resnet.report.resources import ResourceSampler
from sysds_resnet.report.tensorboard import TensorBoardFile


class RunReport:
    """All reports of a run, to which it hands each event; use it in a `with` statement.

    Args:
        folder: The run folder.
        title: The title of the curves.
        epochs, total_steps: The number of epochs and of steps of the whole run.
        done: A function that gives the number of steps done in all and in the epoch under way. It is called
            at the beginning, to know from which step on lines are new, and later by a thread.
        heap_used: A function that gives the bytes of the engine's heap in use.
        log_every: The number of steps between lines in metrics.jsonl.
        tensorboard: Whether to write TensorBoard's files.
        callbacks: The callbacks to tell of what is written to metrics.jsonl.

    Raises:
        UserError: If TensorBoard's files are asked for, and its package is not installed.
    """

    def __init__(
        self,
        folder: Path,
        title: str,
        *,
        epochs: int,
        total_steps: int,
        done: Callable[[], tuple[int, int]],
        heap_used: Callable[[], int | None],
        log_every: int = 1,
        tensorboard: bool = False,
        callbacks: Callbacks | None = None,
    ) -> None:
        self._folder, self._title, self._log_every = folder, title, log_every
        self._done, self._heap_used = done, heap_used
        self._guard = Guard(self.note)
        step, step_in_epoch = done()
        self._display = Display(total_steps, epochs, step)
        self._metrics = MetricsFile(folder, step, step_in_epoch == 0, self.note)
        self._tensorboard = TensorBoardFile(folder, step, self.note) if tensorboard else None
        self._callbacks = callbacks
        self._open = ExitStack()

    def __enter__(self) -> RunReport:
        self._guard("display", lambda: self._open.enter_context(self._display))
        self._guard("resources", lambda: self._open.enter_context(self._sampler()))
        return self

    def __exit__(self, *_: object) -> None:
        self._guard("display", self._open.close)

    def note(self, text: str) -> None:
        """Prints a line that is to stay, from any thread; if that fails, nothing happens."""
        with suppress(Exception):
            self._display.note(text)

    def add(self, event: StepEvent | EpochEvent) -> None:
        """Reports a step or an epoch."""
        if isinstance(event, EpochEvent):
            self.record("epoch", asdict(event))
            self._guard("curves.png", lambda: plot_curves(self._folder, self._title))
            self._guard("display of an epoch", lambda: self._display.epoch(event))
            return
        heap = None
        with suppress(Exception):  # if the JVM has ended, the training loop reports it
            heap = self._heap_used()
        self._guard("display of a step", lambda: self._display.step(event, heap))
        if event.metrics.skipped:
            self.note(
                f"step {event.step}: update left out, loss {event.metrics.loss:g}, gradient norm "
                f"{event.metrics.grad_norm:g}"
            )
        if event.step % self._log_every == 0 or event.metrics.skipped:
            self.record("step", _step_line(event))

    def validating(self, done: int, images: int) -> None:
        """Shows how many of the validation images have been scored."""
        self._guard("display of validation", lambda: self._display.validating(done, images))

    def record(self, event: str, values: Mapping[str, Any]) -> None:
        """Writes a line to metrics.jsonl, and hands it to TensorBoard and the callbacks.

        Args:
            event: The event that the line is about.
            values: The values of the line by name, "step" among them.
        """
        self._guard("metrics.jsonl", lambda: self._metrics.write(event, **values))
        if self._tensorboard is not None:
            self._guard("tensorboard", lambda: self._tensorboard.write(event, **values))
        if self._callbacks is not None:
            self._callbacks.record(event, values)

    def _sampler(self) -> ResourceSampler:
        return ResourceSampler(
            lambda event, **values: self.record(event, values),
            lambda: self._done()[0],
            self._heap_used,
        )


def _step_line(event: StepEvent) -> dict[str, Any]:
    line = {"epoch": event.epoch, "step": event.step, **asdict(event.metrics)}
    if not line.pop("skipped"):
        line["images_per_s"] = event.images / event.seconds
    else:
        line["skipped"] = True
    return {**line, "seconds": event.seconds, "data_wait_s": event.data_wait, **event.measured}
