"""The display of a run while it trains: live on a terminal, plain lines elsewhere."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from typing import TextIO

import numpy as np
from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sysds_resnet.errors import printable
from sysds_resnet.report.events import EpochEvent, StepEvent
from sysds_resnet.system.console import encodable, give_up

INTERVAL = 60.0
REFRESHES_PER_S = 2.0
GAP = "  "
MARGIN = 3  # columns left free at the right, so that the terminal's ^C does not start a new line
BAR = (8, 40)  # the fewest and the most columns of the progress bar
DECAY = 0.95  # the factor by which each later step lowers the weight of a step in smoothed figures


class Display:
    """The display of a run's progress and of the time that is left; use it in a `with` statement.

    On a terminal, two lines at the bottom are kept up to date. The first has a bar, the epoch, the step and
    the time left; the second has the loss, top-1, the learning rate, images/s, the share of the steps' time
    that was spent waiting for data, and the JVM's heap. What others print meanwhile appears above. The last
    figures are left out if there are too few columns. Elsewhere, and if TERM is "dumb", a line with the same
    figures is printed when there was none for `interval` seconds.

    A stream that is gone (a closed terminal or pipe) is not written to any more, and what a full disk does
    not take of a log is left out; the run goes on.

    Args:
        total_steps: The number of steps of the whole run.
        epochs: The number of epochs of the whole run.
        step: The number of steps that a resumed run had done before; their time does not count.
        stream: The stream to write to; by default standard output.
        interval: The least seconds between a line about a step and the line before, if there is no terminal.
    """

    def __init__(
        self,
        total_steps: int,
        epochs: int,
        step: int = 0,
        stream: TextIO | None = None,
        interval: float = INTERVAL,
    ) -> None:
        self._total, self._epochs, self._step = total_steps, epochs, step
        steps_per_epoch = max(1, total_steps // epochs)
        self._steps_per_epoch, self._epoch = steps_per_epoch, min(epochs, step // steps_per_epoch + 1)
        self._epochs_left = epochs - step // steps_per_epoch
        self._pace = _Pace()
        self._figures = ["waiting for the first step"]
        stream = sys.stdout if stream is None else stream
        self._output = _Output(io.StringIO() if stream is None else stream)  # None if it was closed
        self._interval, self._printed = interval, time.monotonic()
        # left to itself, rich would take variables such as FORCE_COLOR for the sign of a terminal
        terminal = self._output.isatty()
        self._console = Console(
            file=self._output, force_terminal=terminal, markup=False, highlight=False, emoji=False
        )
        self._live: Live | None = None

    def __enter__(self) -> Display:
        if self._console.is_interactive:
            self._live = Live(
                get_renderable=lambda: self,
                console=self._console,
                refresh_per_second=REFRESHES_PER_S,
                transient=True,
                redirect_stdout=_is_terminal(sys.stdout),
                redirect_stderr=_is_terminal(sys.stderr),
            )
            self._live.start(refresh=True)
            self._console.show_cursor(True)  # a killed run could not bring a hidden one back
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def step(self, event: StepEvent, heap_bytes: int | None = None) -> None:
        """Shows a step that was done, and the bytes of the JVM's heap in use if they are known."""
        self._pace.step(event)
        self._step, self._epoch = event.step, event.epoch
        figures = _figures(event, self._pace, heap_bytes)
        self._figures = ["validating", *figures] if event.step % self._steps_per_epoch == 0 else figures
        self._print_if_due(figures)

    def validating(self, done: int, images: int) -> None:
        """Shows how many of the validation images have been scored since an epoch's last step."""
        where = f"validating {done}/{images}"
        self._figures = [where, *self._figures[1:]]
        self._print_if_due([where])

    def epoch(self, event: EpochEvent) -> None:
        """Prints the line of an epoch that was done."""
        self._pace.epoch()
        self._epochs_left = self._epochs - event.epoch
        if self._figures[0].startswith("validating"):
            self._figures = self._figures[1:]
        self._print(epoch_line(event, self._epochs))

    def note(self, text: str) -> None:
        """Prints another line that is to stay, from any thread."""
        self._print(text)

    def _print_if_due(self, figures: list[str]) -> None:
        """Prints where the run is, with some figures, if nothing else shows it for long enough."""
        if self._live is None and time.monotonic() - self._printed >= self._interval:
            self._print(GAP.join([*self._position(), *figures]))

    def _print(self, text: str) -> None:
        self._printed = time.monotonic()
        self._console.print(Text(encodable(printable(text), self._output)), soft_wrap=True)

    def _position(self) -> list[str]:
        parts = [
            f"epoch {self._epoch:{len(str(self._epochs))}d}/{self._epochs}",
            f"step {self._step:{len(str(self._total))}d}/{self._total}",
            f"{100 * self._step / max(1, self._total):3.0f} %",
        ]
        left = self._pace.left(self._total - self._step, self._epochs_left)
        return parts if left is None else [*parts, f"ETA {timedelta(seconds=round(left))}"]

    def __rich_console__(self, _console: Console, options: ConsoleOptions) -> RenderResult:
        """Gives the two lines at the bottom of a terminal."""
        width = max(1, options.max_width - MARGIN)
        position = _fit(self._position(), width)
        room = width - len(position) - len(GAP)
        line = Table.grid(padding=(0, len(GAP)))
        if room < BAR[0]:
            line.add_row(_line(position))
        else:
            bar = ProgressBar(max(1, self._total), self._step, width=min(room, BAR[1]))
            line.add_row(bar, _line(position))
        yield line
        if options.size.height > 1:
            yield _line(_fit(self._figures, width))


def epoch_line(event: EpochEvent, epochs: int) -> str:
    """Gives the line about a finished epoch; figures that are None are left out."""
    parts = [f"epoch {event.epoch:{len(str(epochs))}d}/{epochs}", f"train loss {event.train_loss:.4f}"]
    if event.val_loss is not None:
        parts.append(f"val loss {event.val_loss:.4f}")
    for name, share in (("top-1", event.val_top1), ("top-5", event.val_top5)):
        if share is not None:
            parts.append(f"{name} {100 * share:6.2f} %")
    parts.append(f"lr {event.lr:8.3g}")
    if event.images_per_s is not None:
        parts.append(f"{event.images_per_s:6.1f} images/s")
    return GAP.join([*parts, f"{event.seconds:.0f} s"])


def _figures(event: StepEvent, pace: _Pace, heap_bytes: int | None) -> list[str]:
    """Gives the figures of a step that are shown, the most important first."""
    metrics = event.metrics
    figures = [
        f"loss {metrics.loss:.3f}",
        f"top-1 {100 * metrics.top1:.1f} %",
        f"lr {metrics.lr:.3g}",
        f"{pace.images_per_s:.{0 if pace.images_per_s >= 100 else 1}f} images/s",
        f"wait {100 * pace.data_wait:.0f} %",
    ]
    if heap_bytes is not None:
        figures.append(f"heap {heap_bytes / 2**30:.1f} GiB")
    return ["update left out", *figures] if metrics.skipped else figures


def _fit(parts: list[str], width: int) -> str:
    """Joins as many of the parts as have room in so many columns, the first one in any case."""
    while len(parts) > 1 and len(GAP.join(parts)) > width:
        parts = parts[:-1]
    return GAP.join(parts)[:width]


def _line(text: str) -> Text:
    return Text(text, no_wrap=True, overflow="crop")


class _Pace:
    """The smoothed figures of the steps that this process did, and the time left that follows from them."""

    def __init__(self) -> None:
        # weighted sums of 1, seconds, data wait, images, and seconds since the end of the step before
        self._sums = np.zeros(5)
        self._between = 0.0  # seconds between the last step of an epoch and the first of the next
        self._last, self._epoch = None, 0

    def step(self, event: StepEvent) -> None:
        now = time.monotonic()
        whole = event.seconds
        if self._last is not None:
            if event.epoch == self._epoch:
                whole = now - self._last
            else:
                self._between = max(0.0, now - self._last - event.seconds)
        values = np.array([1, event.seconds, event.data_wait, event.images, whole])
        self._sums = DECAY * self._sums + values
        self._last, self._epoch = now, event.epoch

    def epoch(self) -> None:
        """Takes the time since an epoch's last step as the pause between epochs, until a step measures it."""
        if self._last is not None:
            self._between = time.monotonic() - self._last

    @property
    def images_per_s(self) -> float:
        return self._sums[3] / max(self._sums[1], 1e-9)

    @property
    def data_wait(self) -> float:
        """The share of the steps' time that was spent waiting for data."""
        return self._sums[2] / max(self._sums[1], 1e-9)

    def left(self, steps: int, epochs: int) -> float | None:
        """Gives the seconds that so many steps and ends of epochs will take; None before the first step."""
        if self._last is None:
            return None
        planned = steps * self._sums[4] / self._sums[0] + epochs * self._between
        return max(0.0, planned - (time.monotonic() - self._last))


def _is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and not stream.closed and stream.isatty()


class _Output:
    """A stream that ignores what is written once it is gone, since a display must not end a run."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._gone = stream, False

    def write(self, text: str) -> int:
        self._try(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        self._try(self._stream.flush)

    def isatty(self) -> bool:
        return _is_terminal(self._stream)

    def _try(self, do: Callable[[], object]) -> None:
        if not self._gone:
            try:
                do()
            except (OSError, ValueError) as error:  # ValueError: it was closed
                self._gone = give_up(self._stream, error)

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)
