"""The part of a training run that one JVM does."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from sysds_resnet.batches.bad_images import BadImages
from sysds_resnet.batches.readers import Readers
from sysds_resnet.classes.file import CLASSES_FILE, classes_text
from sysds_resnet.engine import Engine
from sysds_resnet.engine.spark.settings import SCRATCH_FOLDER
from sysds_resnet.errors import NotFinite, UserError, one_line
from sysds_resnet.images import Dataset
from sysds_resnet.report.callbacks import Callbacks
from sysds_resnet.report.events import EpochEvent, StepEvent
from sysds_resnet.report.result_tables import write_results
from sysds_resnet.report.results import results_row
from sysds_resnet.report.run_report import RunReport
from sysds_resnet.system.command_lines import python_command
from sysds_resnet.system.console import say, warn
from sysds_resnet.training.checkpoints import Checkpoints, restore
from sysds_resnet.training.class_weights import class_weights
from sysds_resnet.training.identity import identity_of
from sysds_resnet.training.loop import evaluate_state, training_loop
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
from sysds_resnet.training.spark.steps import spark_evaluate, spark_steps
from sysds_resnet.training.start import (
    introduction,
    new_length,
    resolve,
    sizes_of,
    starting_model,
    warn_of_chance,
    warn_of_few_steps,
    warn_of_small_norms,
)
from sysds_resnet.training.state import State
from sysds_resnet.training.steps import Update, local_steps

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
    """

    def __init__(
        self,
        settings: TrainSettings,
        folder: Path,
        sets: list[Dataset],
        restarts: Restarts,
        stopped: Callable[[], bool],
        callbacks: Callbacks,
    ) -> None:
        self._settings, self._folder, self._sets = settings, folder, sets
        self._restarts, self._stopped, self._callbacks = restarts, stopped, callbacks
        self._bad = BadImages(settings, folder)

    def run(self) -> bool:
        """Trains from the last checkpoint, or from the beginning, to the run's end or until it is stopped.

        Returns:
            Whether the run is finished.
        """
        settings, folder = self._settings, self._folder
        shutil.rmtree(folder / SCRATCH_FOLDER, ignore_errors=True)  # what a killed driver left
        with Engine(**settings.engine_options(), cluster=settings.cluster(folder), logs=folder) as engine:
            finished = self._train(engine)
        if finished:
            names = {"weights": WEIGHTS_FILE, "curves": "curves.png", "results": "results.md"}
            there = {what: folder / name for what, name in names.items() if (folder / name).exists()}
            say("\n".join(f"{what + ':':8} {path}" for what, path in there.items()))
        else:
            say(f"stopped at step {self._state.progress.step}; continue with: {resuming_command(folder)}")
        return finished

    def _train(self, engine: Engine) -> bool:
        """Trains, and tells whether the run is finished then."""
        folder, train_set = self._folder, self._sets[0]
        self._settings = settings = resolve(self._settings, engine, train_set, self._settings.depth)
        model, origin = starting_model(settings, train_set, engine)
        if not (folder / CONFIG_FILE).exists():
            classes = classes_text(train_set.classes)
            write_texts({folder / CONFIG_FILE: config_text(settings), folder / CLASSES_FILE: classes})
        self._state = state = State.fresh(model, settings.optimizer)
        weights = class_weights(settings.class_weights, train_set)
        identity = identity_of(settings, self._sets, model, weights)
        restored = restore(folder / CHECKPOINTS_FOLDER, state, identity, warn)
        step = state.progress.step
        self._restarts.reached(step)
        changed = update_config(folder, settings, step)
        say(introduction(settings, folder, engine, self._sets, restored or origin, step))
        warn_of_small_norms(settings)
        warn_of_few_steps(settings, len(train_set))
        frozen = model.network.units_of(settings.frozen_parts)
        self._optimizer = settings.make_optimizer(len(train_set) // settings.batch_size, frozen, weights)
        if "epochs" in changed:
            say(new_length(self._optimizer, state.progress, engine))
        self._begin_callbacks(step)
        began = time.perf_counter()
        with self._report() as report, self._checkpoints(identity, report.note) as saved:
            last = self._watch(report, saved)
            finished = state.progress.epoch >= settings.epochs or self._reached()
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
            say(state.progress.summary(last, (time.perf_counter() - began) / 60))
            warn_of_chance(state.progress.best_top1, self._sets[1])
        if len(self._bad):
            say(f"{len(self._bad)} images cannot be read and were left out: {self._bad.path}")
        return finished

    def _begin_callbacks(self, step: int) -> None:
        total = self._optimizer.schedule.total_steps
        self._callbacks.begin(self._folder, values_of_run(self._settings), total, step)

    def _report(self) -> RunReport:
        settings, state = self._settings, self._state
        title = f"{settings.model} on {Path(settings.dataset).name} with {settings.optimizer}"
        return RunReport(
            self._folder,
            title,
            epochs=settings.epochs,
            total_steps=self._optimizer.schedule.total_steps,
            done=lambda: (state.progress.step, state.progress.step_in_epoch),
            heap_used=state.model.engine.heap_used,
            log_every=settings.log_every,
            tensorboard=settings.tensorboard,
            callbacks=self._callbacks,
        )

    def _checkpoints(self, identity: dict[str, Any], note: Callable[[str], None]) -> Checkpoints:
        settings = self._settings
        return Checkpoints(
            self._folder / CHECKPOINTS_FOLDER,
            identity,
            self._state.model.description(**sizes_of(settings, self._sets[1])),
            settings.keep,
            settings.save_steps,
            settings.save_minutes,
            note,
        )

    def _watch(self, report: RunReport, saved: Checkpoints) -> EpochEvent | None:
        """Trains, reports and saves; gives the event of the last epoch that was done, if one was."""
        settings, state, last = self._settings, self._state, None
        progress = state.progress
        update = None
        if settings.profile is not None:
            steps = self._optimizer.schedule.total_steps - progress.step
            update = StepProfiler(state, settings.profile, steps, self._folder, report.note).update
        try:
            while self._restarts.changes:
                report.record("micro_batch", self._restarts.changes.pop(0))
            for event in self._events(update, report.validating):
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

    def _events(
        self, update: Update | None, validating: Callable[[int, int], None]
    ) -> Iterator[StepEvent | EpochEvent]:
        """Runs the training loop on the run's data, here or on a cluster, and yields its events."""
        settings, state, bad = self._settings, self._state, self._bad
        train_set, val_set = self._sets
        with ExitStack() as stack:
            if state.model.engine.spark:
                steps = stack.enter_context(spark_steps(settings, state, train_set, bad))
                validate = partial(spark_evaluate, settings, state, val_set, bad, self._ended)
            else:
                readers = stack.enter_context(Readers(self._sets, settings.workers))
                steps = stack.enter_context(local_steps(settings, state, train_set, readers, bad, update))
                validate = partial(
                    evaluate_state,
                    state,
                    val_set,
                    readers,
                    bad,
                    self._ended,
                    lambda images: validating(images, len(val_set)),
                )
            yield from training_loop(
                state,
                steps,
                self._optimizer,
                epochs=settings.epochs,
                validate=validate,
                on_nan=settings.on_nan,
                stopped=self._ended,
            )

    def _ended(self) -> bool:
        return self._stopped() or self._callbacks.stopping() or self._reached()

    def _reached(self) -> bool:
        """Tells whether the accuracy that ends training was reached, or the patience is at its end."""
        threshold, patience = self._settings.acc_thresh, self._settings.patience
        progress = self._state.progress
        if progress.best_top1 is None:
            return False
        reached = threshold is not None and 100 * progress.best_top1 >= threshold
        return reached or (patience is not None and progress.epoch - progress.best_epoch >= patience)


def resuming_command(folder: Path) -> str:
    """Gives the command line that goes on with the run in a folder."""
    return python_command("train", "--resume", folder)
