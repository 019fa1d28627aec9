"""The progress of a run: the steps and epochs that are done, and the best validation so far."""

from __future__ import annotations

from dataclasses import dataclass, field

from sysds_resnet.report.events import EpochEvent


@dataclass
class Progress:
    """The progress of a run.

    Attributes:
        step: The number of steps done in all.
        epoch: The number of epochs done.
        step_in_epoch: The number of steps done in the epoch under way.
        losses: The losses of these steps, without those whose update was left out.
        lr: The learning rate of the last step.
        skipped: The number of updates that were left out because the loss or gradient was not finite.
        skipped_in_a_row: How many of these were the last ones.
        best_top1: The best validation top-1 so far, from 0 to 1; None before the first validation.
        best_epoch: The epoch of this validation, from 1.
    """

    step: int = 0
    epoch: int = 0
    step_in_epoch: int = 0
    losses: list[float] = field(default_factory=list)
    lr: float = 0.0
    skipped: int = 0
    skipped_in_a_row: int = 0
    best_top1: float | None = None
    best_epoch: int | None = None

    @property
    def updates(self) -> int:
        """The number of updates of the weights: that of the steps without those that were left out."""
        return self.step - self.skipped

    def skip(self) -> None:
        """Counts a step that was done without its update."""
        self.step += 1
        self.skipped += 1
        self.skipped_in_a_row += 1

    def finish_epoch(self, top1: float | None) -> None:
        """Counts an epoch that was done and validated; `top1` is None if there were no images to validate."""
        self.epoch += 1
        self.step_in_epoch = 0
        self.losses = []
        if top1 is not None and (self.best_top1 is None or top1 > self.best_top1):
            self.best_top1, self.best_epoch = top1, self.epoch

    def summary(self, last: EpochEvent | None, minutes: float) -> str:
        """Gives the text that a run prints at its end.

        Args:
            last: The last epoch that this process did; None if there was none left.
            minutes: The minutes that it trained.
        """
        lines = ["the run is finished: no epoch left to train"]
        if last is not None:
            best = f"best {100 * self.best_top1:.2f} % in epoch {self.best_epoch}"
            lines = [f"validation top-1 {100 * last.val_top1:.2f} % ({best}) after {minutes:.1f} minutes"]
        if self.skipped:
            lines.append(f"{self.skipped} of {self.step} updates were left out: loss or gradient not finite")
        return "\n".join(lines)
