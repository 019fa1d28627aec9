"""A training run from its settings to its weights, in one JVM, or in several where one ends early."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from sysds_resnet.errors import EngineDied, OutOfMemory, UserError
from sysds_resnet.images import Dataset
from sysds_resnet.images.settings import print_notes
from sysds_resnet.report.callbacks import Callback, Callbacks
from sysds_resnet.system.console import say, warn
from sysds_resnet.system.signals import StopSignals
from sysds_resnet.training.dry_run import engine_command
from sysds_resnet.training.processes.launcher import train_together
from sysds_resnet.training.restarting import Restarts
from sysds_resnet.training.run_folder import CONFIG_FILE, config_text, run_folder
from sysds_resnet.training.session import Session, callbacks_of, resuming_command
from sysds_resnet.training.settings import TrainSettings
from sysds_resnet.training.spark.driver import train_on_cluster
from sysds_resnet.training.start import open_sets


def train(settings: TrainSettings, callbacks: Sequence[Callback] = ()) -> Path | None:
    """Trains as the settings say and gives the run folder; a dry run has none.

    Ctrl-C and SIGTERM end the run after the step under way, with a checkpoint; a second one ends it at once.
    When the JVM ends, another one goes on from the last checkpoint. If the heap was full, it does so with
    micro-batches half as large.

    Args:
        settings: The settings of the run.
        callbacks: Callbacks to tell of the run, beside those that the settings name.

    Raises:
        UserError: If something goes wrong that the user can mend; what was saved before stays.
    """
    if not settings.dry_run:
        settings.check_cluster()
    if settings.dry_run:
        settings, sets, chosen = open_sets(settings)
        print_notes(*sets)
        print("".join([f"# {line}\n" for line in (chosen or "").splitlines()]), end="")
        print(config_text(settings) + engine_command(settings, sets[0].image_size))
        return None
    told, finished = _callbacks(settings, callbacks), False
    with run_folder(settings, warn) as folder:
        settings, sets, chosen = open_sets(settings)
        print_notes(*sets)
        if chosen:
            say(chosen)
        restarts = Restarts(folder)
        try:
            with StopSignals() as stopped:
                while True:
                    try:
                        finished = _train_once(settings, folder, sets, restarts, stopped, told)
                        return folder
                    except (EngineDied, OutOfMemory) as error:
                        settings = restarts.after(error, settings, stopped())
        except KeyboardInterrupt:
            if (folder / CONFIG_FILE).exists():
                say(f"continue with: {resuming_command(folder)}", sys.stderr)
            raise
        finally:
            told.end(finished)


def _callbacks(settings: TrainSettings, more: Sequence[Callback]) -> Callbacks:
    """Gives the callbacks of this process: none of the settings', where another process reports.

    Raises:
        UserError: If there are others which that process cannot have.
    """
    if not settings.elsewhere:
        return Callbacks([*callbacks_of(settings), *more], warn)
    if more:
        raise UserError(
            "callbacks: found objects of this process with processes, GPUs or executors that train in its "
            "place, expected classes that they can import; name them by the setting callbacks"
        )
    return Callbacks([], warn)


def _train_once(
    settings: TrainSettings,
    folder: Path,
    sets: list[Dataset],
    restarts: Restarts,
    stopped: Callable[[], bool],
    callbacks: Callbacks,
) -> bool:
    """Trains until the run is finished or stopped, or loses a JVM; tells whether it is finished."""
    if settings.engine == "spark":
        return train_on_cluster(settings, folder, restarts, stopped)
    gpus = settings.engine_options()["gpus"]
    if settings.processes_on(gpus) > 1:
        return train_together(settings, folder, gpus, restarts, stopped)
    return Session(settings, folder, sets, restarts, stopped, callbacks).run()
