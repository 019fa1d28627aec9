"""Restarts of the JVM: how a run goes on when its JVM has ended."""

from __future__ import annotations

from pathlib import Path

from sysds_resnet.errors import EngineDied, OutOfMemory, UserError
from sysds_resnet.settings.command_line import build
from sysds_resnet.system.command_lines import own_command
from sysds_resnet.system.console import warn
from sysds_resnet.training.retention import checkpoints, step_of
from sysds_resnet.training.run_folder import CHECKPOINTS_FOLDER, CONFIG_FILE, read_config, write_config
from sysds_resnet.training.settings import TrainSettings

MAX_RESTARTS = 3  # without a new checkpoint in between, where the heap was not full


class Restarts:
    """The decisions after each end of a run's JVM: another goes on from the last checkpoint, or none does.

    If the heap was full, the next JVM gets micro-batches half as large; otherwise it gets the same ones.

    Args:
        folder: The folder of the run.

    Attributes:
        changes: The changes of the micro-batch that `after` has made, as lines for metrics.jsonl; whoever
            writes them removes them from this list.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count, self._from = 0, -1  # restarts since the checkpoint of this step
        self._step = 0
        self.changes: list[dict[str, object]] = []

    def reached(self, step: int) -> None:
        """Notes how many steps are done."""
        self._step = step

    def after(
        self, error: EngineDied | OutOfMemory, settings: TrainSettings, stopping: bool
    ) -> TrainSettings:
        """Gives the settings to go on with in a new JVM.

        Args:
            error: The error that ended the JVM before.
            settings: The settings of the run.
            stopping: Whether the run was asked to stop meanwhile.

        Raises:
            UserError: If the run is not to go on; the message says how many steps are lost, and how to
                continue.
        """
        if not (self._folder / CONFIG_FILE).exists():  # it ended before the run had begun
            raise error
        saved = self._saved()
        if stopping:
            raise self._lost(error, saved) from error
        if isinstance(error, OutOfMemory):
            return self._with_smaller_micro_batch(error, settings, saved)
        self._count = self._count + 1 if saved == self._from else 1
        self._from = saved
        if self._count > MAX_RESTARTS:
            raise self._lost(error, saved) from error
        warn(f"{error}; going on in a new one from step {saved}, with the same micro-batch")
        return settings.model_copy(update={"resume": self._folder})

    def _with_smaller_micro_batch(
        self, error: OutOfMemory, settings: TrainSettings, saved: int
    ) -> TrainSettings:
        written = build(TrainSettings, read_config(self._folder))
        batch_size, micro_batch = written.batch_size, written.micro_batch
        smaller = [n for n in range(1, micro_batch // 2 + 1) if batch_size % n == 0]
        if not smaller:
            raise self._lost(error, saved) from error
        n = smaller[-1]
        warn(f"{error}; going on with micro_batch {n} in place of {micro_batch}")
        changed = {"micro_batch": n}
        remark = f"micro_batch {n} in place of {micro_batch} from step {saved} on: {error}"
        write_config(self._folder, written.model_copy(update=changed), remark)
        self.changes.append(
            {"step": saved, "micro_batch": n, "micro_batch_before": micro_batch, "reason": str(error)}
        )
        return settings.model_copy(update={**changed, "resume": self._folder})

    def _saved(self) -> int:
        """Gives the step of the newest checkpoint; 0 if there is none."""
        found = checkpoints(self._folder / CHECKPOINTS_FOLDER)
        return step_of(found[-1]) if found else 0

    def _lost(self, error: UserError, saved: int) -> UserError:
        """Gives an error of the same class that also says how many steps are lost, and how to go on."""
        lost = max(0, self._step - saved)
        steps = "no step is" if lost == 0 else "1 step is" if lost == 1 else f"{lost} steps are"
        where = f"the checkpoint of step {saved}" if saved else "its beginning, without a checkpoint"
        return type(error)(
            f"{error}; the run goes on from {where} ({steps} lost) with: "
            f"{own_command('train', '--resume', self._folder)}"
        )
