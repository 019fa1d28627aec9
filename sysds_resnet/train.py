"""Trains a network: python -m sysds_resnet.train."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from sysds_resnet.batches.readers import Readers
from sysds_resnet.batches.stream import OnError
from sysds_resnet.classes.file import CLASSES_FILE, classes_text
from sysds_resnet.engine import Engine
from sysds_resnet.engine.jvm.memory import parse_size
from sysds_resnet.engine.spark.settings import SCRATCH_FOLDER
from sysds_resnet.errors import EngineDied, NotFinite, OutOfMemory, UserError, one_line
from sysds_resnet.images import Dataset
from sysds_resnet.images.settings import BadImages, print_notes
from sysds_resnet.report.run_report import RunReport, summary
from sysds_resnet.results import results_row, write_results
from sysds_resnet.settings.command_line import find_flag, parse, run
from sysds_resnet.settings.recipes import describe_all
from sysds_resnet.system.command_lines import python_command
from sysds_resnet.system.console import say, warn
from sysds_resnet.system.signals import StopSignals
from sysds_resnet.training.checkpoints import Checkpoints, restore
from sysds_resnet.training.identity import identity_of
from sysds_resnet.training.loop import EpochEvent, StepEvent, evaluate_state, training_loop
from sysds_resnet.training.profiling import StepProfiler
from sysds_resnet.training.restarting import Restarts
from sysds_resnet.training.run_folder import (
    CHECKPOINTS_FOLDER,
    CONFIG_FILE,
    check_settings,
    config_text,
    read_config,
    run_folder,
    update_config,
    write_texts,
)
from sysds_resnet.training.settings import TrainSettings
from sysds_resnet.training.spark.steps import spark_evaluate, spark_steps
from sysds_resnet.training.start import (
    engine_command,
    introduction,
    open_set,
    resolve,
    sizes_of,
    starting_model,
    warn_of_small_norms,
)
from sysds_resnet.training.state import Optimizer, State
from sysds_resnet.training.steps import Update, local_steps

WEIGHTS_FILE = "weights.safetensors"


def train(settings: TrainSettings) -> Path | None:
    """Trains as the settings say and gives the run folder; none of a dry run.

    Ctrl-C and SIGTERM end it after the step under way, with a checkpoint; a second one ends it at once. When
    the JVM ends, another goes on from the last checkpoint, if its heap was full with micro-batches half as
    large.

    Raises:
        UserError: What the user can mend; what was saved before stays.
    """
    if not settings.dry_run:
        settings.check_cluster(settings.resume or settings.out or Path())
    if settings.dry_run:
        print_notes(*(open_set(settings, split) for split in ("train", "val")))
        print(config_text(settings) + engine_command(settings))
        return None
    with run_folder(settings, warn) as folder:
        sets = [open_set(settings, split) for split in ("train", "val")]
        print_notes(*sets)
        restarts = Restarts(folder)
        try:
            with StopSignals() as stopped:
                while True:
                    try:
                        _session(settings, folder, sets, restarts, stopped)
                        return folder
                    except (EngineDied, OutOfMemory) as error:
                        settings = restarts.after(error, settings, stopped())
        except KeyboardInterrupt:
            if (folder / CONFIG_FILE).exists():
                say(f"continue with: {_resuming(folder)}", sys.stderr)
            raise


def _session(
    settings: TrainSettings,
    folder: Path,
    sets: list[Dataset],
    restarts: Restarts,
    stopped: Callable[[], bool],
) -> None:
    """One JVM's part of a run."""
    train_set = sets[0]
    heap, cluster = settings.heap and parse_size(settings.heap), settings.cluster(folder)
    gpus = () if cluster else settings.chosen_gpus()
    shutil.rmtree(folder / SCRATCH_FOLDER, ignore_errors=True)  # of a driver that was killed
    with Engine(settings.precision, heap, settings.blas, cluster=cluster, gpus=gpus, logs=folder) as engine:
        settings = resolve(settings, engine, train_set, settings.depth)
        model, origin = starting_model(settings, train_set, engine)
        if not (folder / CONFIG_FILE).exists():
            classes = classes_text(train_set.classes)
            write_texts({folder / CONFIG_FILE: config_text(settings), folder / CLASSES_FILE: classes})
        state = State.fresh(model)
        identity = identity_of(settings, sets, model)
        restored = restore(folder / CHECKPOINTS_FOLDER, state, identity, warn)
        restarts.reached(state.progress.step)
        update_config(folder, settings, state.progress.step)
        say(introduction(settings, folder, engine, sets, restored or origin, state.progress.step))
        warn_of_small_norms(settings)
        frozen = model.network.units_of(settings.frozen_parts)
        optimizer = settings.make_optimizer(len(train_set) // settings.batch_size, frozen)
        finished = _run(settings, folder, state, sets, optimizer, identity, restarts, stopped)
    if finished:
        names = {"weights": WEIGHTS_FILE, "curves": "curves.png", "results": "results.md"}
        say("\n".join(f"{what + ':':8} {folder / name}" for what, name in names.items()))
    else:
        say(f"stopped at step {state.progress.step}; continue with: {_resuming(folder)}")


def _resuming(folder: Path) -> str:
    return python_command("train", "--resume", folder)


def _run(
    settings: TrainSettings,
    folder: Path,
    state: State,
    sets: list[Dataset],
    optimizer: Optimizer,
    identity: dict[str, Any],
    restarts: Restarts,
    stopped: Callable[[], bool],
) -> bool:
    """Trains; whether to the end."""
    progress, total_steps = state.progress, optimizer.schedule.total_steps
    bad = BadImages(settings, folder)
    began, last = time.perf_counter(), None
    with (
        RunReport(settings, folder, state, total_steps) as report,
        Checkpoints(
            folder / CHECKPOINTS_FOLDER,
            identity,
            state.model.description(**sizes_of(settings, sets[1])),
            settings.keep,
            settings.save_steps,
            settings.save_minutes,
            report.note,
        ) as saved,
    ):
        update = None
        if settings.profile is not None:
            steps = total_steps - progress.step
            update = StepProfiler(state, settings.profile, steps, folder, report.note).update
        try:
            while restarts.changes:
                report.record("micro_batch", restarts.changes.pop(0))
            for event in _events(settings, state, sets, optimizer, bad, stopped, update):
                restarts.reached(progress.step)
                report.add(event)
                if isinstance(event, EpochEvent):
                    last = event
                    saved.save(state, best=progress.best_epoch == event.epoch)
                else:
                    saved.save_if_due(state)
        except NotFinite as error:
            saved.save(state)
            raise UserError(
                f"{error}; the state before this step is in {folder}, from which --resume goes on, with "
                "--on-nan skip without this step"
            ) from error
        finished = progress.epoch == settings.epochs or _reached(settings, state)
        if finished:
            state.model.weights = state.averaged
            state.model.save(folder / WEIGHTS_FILE, **sizes_of(settings, sets[1]))
        else:
            saved.save(state)
    if finished:
        try:
            write_results(folder, results_row(folder))
        except Exception as error:  # they only report what is in the folder
            warn(f"results.md not written: {one_line(error)}")
        say(summary(state.progress, last, (time.perf_counter() - began) / 60))
    if len(bad):
        say(f"{len(bad)} images cannot be read and were left out: {bad.path}")
    return finished


def _events(
    settings: TrainSettings,
    state: State,
    sets: list[Dataset],
    optimizer: Optimizer,
    on_error: OnError,
    stopped: Callable[[], bool],
    update: Update | None,
) -> Iterator[StepEvent | EpochEvent]:
    """The training loop on the run's data, with those who read it."""

    def ended() -> bool:
        return stopped() or _reached(settings, state)

    train_set, val_set = sets
    with ExitStack() as stack:
        if state.model.engine.spark:
            steps = stack.enter_context(spark_steps(settings, state, train_set, on_error))
            validate = partial(spark_evaluate, settings, state, val_set, on_error, ended)
        else:
            readers = stack.enter_context(Readers(sets, settings.workers))
            steps = stack.enter_context(local_steps(settings, state, train_set, readers, on_error, update))
            validate = partial(evaluate_state, state, val_set, readers, on_error, ended)
        yield from training_loop(
            state,
            steps,
            optimizer,
            epochs=settings.epochs,
            validate=validate,
            on_nan=settings.on_nan,
            stopped=ended,
        )


def _reached(settings: TrainSettings, state: State) -> bool:
    """Whether the accuracy that ends training was reached."""
    best = state.progress.best_top1
    return settings.acc_thresh is not None and best is not None and 100 * best >= settings.acc_thresh


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    if find_flag("recipe", sys.argv[1:] if argv is None else argv) == "list":
        print(describe_all())
        return 0
    return run(TrainSettings, lambda settings: _command(settings, argv), argv)


def _command(settings: TrainSettings, argv: list[str] | None) -> None:
    if settings.resume is not None:
        # the run's own settings stand behind the flags
        base = read_config(settings.resume)
        settings = parse(TrainSettings, sys.argv[1:] if argv is None else argv, base)
        check_settings(settings, settings.resume)
    train(settings)


if __name__ == "__main__":
    sys.exit(main())
