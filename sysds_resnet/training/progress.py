"""Where a run stands: steps and epochs done, and the best validation so far."""

from __future__ import annotations

from dataclasses import dataclass, field

from sysds_resnet.report.events import EpochEvent


@dataclass
class Progress:
    """Where a run stands.

    Attributes:
        step: Steps done in all.
        epoch: Epochs done.
        step_in_epoch: Steps done in the epoch under way.
        losses: Of these steps.
        lr: Of the last step.
        skipped, skipped_in_a_row: Updates that were left out because something was not finite.
        best_top1, best_epoch: Of the validations so far.
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

    def skip(self) -> None:
        """A step was done without its update."""
        self.step += 1
        self.skipped += 1
        self.skipped_in_a_row += 1

    def finish_epoch(self, top1: float | None) -> None:
        """An epoch was done and validated."""
        self.epoch += 1
        self.step_in_epoch = 0
        self.losses = []
        if top1 is not None and (self.best_top1 is None or top1 > self.best_top1):
            self.best_top1, self.best_epoch = top1, self.epoch

    def summary(self, last: EpochEvent | None, minutes: float) -> str:
        """What a run says at its end.

        Args:
            last: The last epoch that this process did; None if there was none left.
            minutes: That it took.
        """
        lines = ["the run is finished: no epoch left to train"]
        if last is not None:
            best = f"best {100 * self.best_top1:.2f} % in epoch {self.best_epoch}"
            lines = [f"validation top-1 {100 * last.val_top1:.2f} % ({best}) after {minutes:.1f} minutes"]
        if self.skipped:
            lines.append(f"{self.skipped} of {self.step} updates were left out: loss or gradient not finite")
        return "\n".join(lines)
