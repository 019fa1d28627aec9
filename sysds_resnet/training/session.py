"""The part of a training run that one JVM does, with all that is reported and saved of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sysds_resnet.batches.bad_images import BadImages
from sysds_resnet.classes.file import CLASSES_FILE, classes_text
from sysds_resnet.engine import Engine
from sysds_resnet.errors import NotFinite, UserError, one_line
from sysds_resnet.images import Dataset
from sysds_resnet.report.callbacks import Callback, Callbacks, load_callbacks
from sysds_resnet.report.events import EpochEvent
from sysds_resnet.report.mlflow_runs import MlflowCallback
from sysds_resnet.report.result_tables import write_results
from sysds_resnet.report.results import results_row
from sysds_resnet.report.run_report import RunReport
from sysds_resnet.system.command_lines import own_command
from sysds_resnet.system.console import say, warn
from sysds_resnet.training.checkpoints import Checkpoints
from sysds_resnet.training.processes.group import Group
from sysds_resnet.training.profiling import StepProfiler
from sysds_resnet.training.restarting import Restarts
from sysds_resnet.training.run_folder import (
    CHECKPOINTS_FOLDER,
    CONFIG_FILE,
    config_text,
    update_config,
    values_of_run,
    write_texts,
)
from sysds_resnet.training.settings import TrainSettings
from sysds_resnet.training.start import (
    introduction,
    new_length,
    open_engine,
    sizes_of,
    warn_of_chance,
    warn_of_few_steps,
    warn_of_small_norms,
)
from sysds_resnet.training.trainer import Trainer

WEIGHTS_FILE = "weights.safetensors"


class Session:
    """The part of a run that one JVM does.

    Args:
        settings: The settings of the run, before they are resolved.
        folder: The folder of the run.
        sets: The training and the validation images.
        restarts: The decisions about restarts, which are told of each step that is done.
        stopped: A function that tells whether the run was asked to stop.
        callbacks: The callbacks to tell of the run.
        group: The processes that train together, of which this one is the first; by default it is alone.
        engine_options: The arguments for the engine; by default those that the settings ask for.
    """

    def __init__(
        self,
        settings: TrainSettings,
        folder: Path,
        sets: list[Dataset],
        restarts: Restarts,
        stopped: Callable[[], bool],
        callbacks: Callbacks,
        group: Group | None = None,
        engine_options: Mapping[str, Any] | None = None,
    ) -> None:
        self._settings, self._folder, self._sets = settings, folder, sets
        self._restarts, self._stopped, self._callbacks = restarts, stopped, callbacks
        self._group, self._engine_options = group or Group(), engine_options
        self._bad = BadImages(settings, folder)

    def run(self) -> bool:
        """Trains from the last checkpoint, or from the beginning, to the run's end or until it is stopped.

        Returns:
            Whether the run is finished.
        """
        settings, folder = self._settings, self._folder
        options = self._engine_options or {**settings.engine_options(), "logs": folder}
        with open_engine(settings, options, self._sets[0], self._group.size) as engine:
            finished = self._train(engine)
        if finished:
            names = {"weights": WEIGHTS_FILE, "curves": "curves.png", "results": "results.md"}
            there = {what: folder / name for what, name in names.items() if (folder / name).exists()}
            say("\n".join(f"{what + ':':8} {path}" for what, path in there.items()))
        else:
            step = self._trainer.state.progress.step
            say(f"stopped at step {step}; continue with: {resuming_command(folder)}")
        return finished

    def _train(self, engine: Engine) -> bool:
        """Trains, and tells whether the run is finished then."""
        folder, train_set = self._folder, self._sets[0]
        self._trainer = trainer = Trainer(self._settings, folder, self._sets, engine, self._group)
        settings, state = trainer.settings, trainer.state
        if not (folder / CONFIG_FILE).exists():
            classes = classes_text(train_set.classes)
            write_texts({folder / CONFIG_FILE: config_text(settings), folder / CLASSES_FILE: classes})
        step = state.progress.step
        self._restarts.reached(step)
        changed = update_config(folder, settings, step)
        say(introduction(settings, folder, engine, self._sets, trainer.origin, step, self._group.size))
        warn_of_small_norms(settings)
        warn_of_few_steps(settings, len(train_set))
        total_steps = trainer.optimizer.schedule.total_steps
        if "epochs" in changed:
            say(new_length(trainer.optimizer, state.progress, engine))
        self._callbacks.begin(folder, values_of_run(settings), total_steps, step)
        began = time.perf_counter()
        with self._report(trainer) as report, self._checkpoints(trainer, report.note) as saved:
            last = self._watch(trainer, report, saved)
            finished = trainer.finished()
            if finished:
                state.model.weights = state.averaged
                state.model.save(folder / WEIGHTS_FILE, **sizes_of(settings, self._sets[1]))
            else:
                saved.save(state)
        if finished:
            try:
                write_results(folder, results_row(folder))
            except Exception as error:  # results only report what is in the folder
                warn(f"results.md not written: {one_line(error)}")
            if state.progress.epoch < settings.epochs:
                say(f"ended after epoch {state.progress.epoch} of {settings.epochs}: {trainer.reached()}")
            say(state.progress.summary(last, (time.perf_counter() - began) / 60))
            warn_of_chance(state.progress.best_top1, self._sets[1])
        if len(self._bad):
            say(f"{len(self._bad)} images cannot be read and were left out: {self._bad.path}")
        return finished

    def _report(self, trainer: Trainer) -> RunReport:
        settings, state = trainer.settings, trainer.state
        title = f"{settings.model} on {Path(settings.dataset).name} with {settings.optimizer}"
        return RunReport(
            self._folder,
            title,
            epochs=settings.epochs,
            total_steps=trainer.optimizer.schedule.total_steps,
            done=lambda: (state.progress.step, state.progress.step_in_epoch),
            heap_used=state.model.engine.heap_used,
            log_every=settings.log_every,
            tensorboard=settings.tensorboard,
            callbacks=self._callbacks,
        )

    def _checkpoints(self, trainer: Trainer, note: Callable[[str], None]) -> Checkpoints:
        settings = trainer.settings
        return Checkpoints(
            self._folder / CHECKPOINTS_FOLDER,
            trainer.identity,
            trainer.state.model.description(**sizes_of(settings, self._sets[1])),
            settings.keep,
            settings.save_steps,
            settings.save_minutes,
            note,
        )

    def _watch(self, trainer: Trainer, report: RunReport, saved: Checkpoints) -> EpochEvent | None:
        """Trains, reports and saves; gives the event of the last epoch that was done, if one was."""
        settings, state, last = trainer.settings, trainer.state, None
        progress = state.progress
        update = None
        if settings.profile is not None:
            steps = trainer.optimizer.schedule.total_steps - progress.step
            update = StepProfiler(state, settings.profile, steps, self._folder, report.note).update
        try:
            while self._restarts.changes:
                report.record("micro_batch", self._restarts.changes.pop(0))
            for event in trainer.events(self._asked, self._bad, report.validating, update):
                self._restarts.reached(progress.step)
                report.add(event)
                if isinstance(event, EpochEvent):
                    last = event
                    saved.save(state, best=progress.best_epoch == event.epoch)
                else:
                    saved.save_if_due(state)
        except NotFinite as error:
            saved.save(state)
            raise UserError(
                f"{error}; the state before this step is in {self._folder}, from which --resume goes on, "
                "with --on-nan skip without this step"
            ) from error
        return last

    def _asked(self) -> bool:
        """Tells whether somebody asked the run to stop."""
        return self._stopped() or self._callbacks.stopping()


def callbacks_of(settings: TrainSettings) -> list[Callback]:
    """Makes the callbacks that the settings of a run name."""
    own = [MlflowCallback(settings.mlflow)] if settings.mlflow else []
    return [*own, *load_callbacks(settings.callbacks)]


def resuming_command(folder: Path) -> str:
    """Gives the command line that goes on with the run in a folder."""
    return own_command("train", "--resume", folder)
