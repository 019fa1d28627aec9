"""What every process of a run does: it makes the state of the run, and trains it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from sysds_resnet.batches.readers import Readers
from sysds_resnet.batches.stream import OnError
from sysds_resnet.engine import Engine
from sysds_resnet.errors import UserError
from sysds_resnet.images import Dataset
from sysds_resnet.images.part import PartDataset
from sysds_resnet.report.events import EpochEvent, StepEvent
from sysds_resnet.system.console import warn
from sysds_resnet.training.checkpoints import restore
from sysds_resnet.training.class_weights import class_weights
from sysds_resnet.training.identity import identity_of
from sysds_resnet.training.loop import evaluate_state, training_loop
from sysds_resnet.training.processes.group import Group
from sysds_resnet.training.processes.sharing import (
    Exchange,
    SharedUpdate,
    evaluate_part,
    own_images,
    own_part,
)
from sysds_resnet.training.run_folder import CHECKPOINTS_FOLDER
from sysds_resnet.training.settings import TrainSettings
from sysds_resnet.training.start import resolve, starting_model
from sysds_resnet.training.state import State
from sysds_resnet.training.steps import Steps, Update, training_steps

Validating = Callable[[int, int], object]
"""A function that is told how many images have been scored, and how many there are."""


class Trainer:
    """The state of a run, from its newest checkpoint or from its beginning, and its training.

    Args:
        settings: The settings of the run, before they are resolved.
        folder: The folder of the run.
        sets: The training and the validation images.
        engine: The engine of this process.
        group: The processes that train together.

    Attributes:
        settings: The settings, resolved.
        state: The state of the run.
        optimizer: The optimizer of every step.
        identity: What a resumed run is compared by.
        origin: Where the state comes from: a checkpoint, or weights; None for fresh weights.

    Raises:
        UserError: If the settings, the data and the checkpoint do not fit each other, or the processes do not
            see the same data and the same checkpoint.
    """

    def __init__(
        self,
        settings: TrainSettings,
        folder: Path,
        sets: list[Dataset],
        engine: Engine,
        group: Group,
    ) -> None:
        self.settings = settings = resolve(settings, engine, sets[0], settings.depth, group)
        self._sets, self._group = sets, group
        model, origin = starting_model(settings, sets[0], engine)
        self.state = State.fresh(model, settings.optimizer)
        weights = class_weights(settings.class_weights, sets[0])
        self.identity = identity_of(settings, sets, model, weights, group.size)
        restored = restore(folder / CHECKPOINTS_FOLDER, self.state, self.identity, warn)
        self.origin: Path | str | None = restored or origin
        frozen = model.network.units_of(settings.frozen_parts)
        self.optimizer = settings.make_optimizer(len(sets[0]) // settings.batch_size, frozen, weights)
        self._check_agreement()

    def reached(self) -> str | None:
        """Tells what ends training before its last epoch: accuracy or patience; None if nothing does."""
        threshold, patience = self.settings.acc_thresh, self.settings.patience
        progress = self.state.progress
        if progress.best_top1 is None:
            return None
        if threshold is not None and 100 * progress.best_top1 >= threshold:
            return f"top-1 of {threshold:g} % reached (--acc-thresh)"
        if patience is not None and progress.epoch - progress.best_epoch >= patience:
            return f"no better top-1 than in epoch {progress.best_epoch} (--patience {patience})"
        return None

    def finished(self) -> bool:
        """Tells whether all of the run is done."""
        return self.state.progress.epoch >= self.settings.epochs or self.reached() is not None

    def events(
        self,
        asked: Callable[[], bool],
        on_error: OnError,
        validating: Validating = lambda done, images: None,
        update: Update | None = None,
    ) -> Iterator[StepEvent | EpochEvent]:
        """Trains to the end of the run, and yields an event after each step and each epoch.

        Args:
            asked: A function that tells whether this process was asked to stop.
            on_error: A function that is told of images that cannot be read.
            validating: A function that is told how far a validation is.
            update: A function that does a step in place of `State.update`, where a process trains alone.
        """
        with ExitStack() as stack:
            if self._group.size == 1:
                yield from self._alone(stack, asked, on_error, validating, update)
            else:
                yield from self._together(stack, asked, on_error, validating)

    def _alone(
        self,
        stack: ExitStack,
        asked: Callable[[], bool],
        on_error: OnError,
        validating: Validating,
        update: Update | None,
    ) -> Iterator[StepEvent | EpochEvent]:
        settings, state, (train_set, val_set) = self.settings, self.state, self._sets
        readers = stack.enter_context(Readers(self._sets, settings.workers))
        steps = stack.enter_context(training_steps(settings, state, train_set, readers, on_error, update))
        ended = self._or_reached(asked)

        def scored(images: int) -> None:
            validating(images, len(val_set))

        validate = partial(evaluate_state, state, val_set, readers, on_error, ended, scored)
        return self._loop(steps, validate, ended)

    def _together(
        self, stack: ExitStack, asked: Callable[[], bool], on_error: OnError, validating: Validating
    ) -> Iterator[StepEvent | EpochEvent]:
        settings, state, group, (train_set, val_set) = self.settings, self.state, self._group, self._sets
        part = PartDataset(val_set, own_part(len(val_set), group))
        readers = stack.enter_context(Readers([train_set, part], settings.workers))
        exchange = Exchange(group, self._sets, asked, on_error)
        shared = SharedUpdate(state, exchange, settings.batch_size, settings.wire == "bf16")
        steps = stack.enter_context(
            training_steps(
                settings,
                state,
                train_set,
                readers,
                exchange.note_unread,
                shared.update,
                own_images(settings.batch_size, settings.micro_batch, group),
                shared.measured,
            )
        )

        def scored(images: int) -> None:
            validating(images, len(part))

        validate = partial(evaluate_part, state, part, readers, exchange, scored)
        return self._loop(steps, validate, self._or_reached(lambda: exchange.stopping))

    def _loop(
        self, steps: Steps, validate: Callable[[], dict[str, float] | None], stopped: Callable[[], bool]
    ) -> Iterator[StepEvent | EpochEvent]:
        settings = self.settings
        return training_loop(
            self.state,
            steps,
            self.optimizer,
            epochs=settings.epochs,
            validate=validate,
            on_nan=settings.on_nan,
            stopped=stopped,
        )

    def _or_reached(self, stopped: Callable[[], bool]) -> Callable[[], bool]:
        return lambda: stopped() or self.reached() is not None

    def _check_agreement(self) -> None:
        """Checks that all processes have the same data, settings and checkpoint."""
        identity = {name: value for name, value in self.identity.items() if name not in ("machine", "place")}
        text = json.dumps([self.state.progress.step, identity], sort_keys=True, default=str)
        found = self._group.gather(hashlib.sha256(text.encode()).hexdigest())
        for rank, digest in enumerate(found):
            if digest != found[0]:
                raise UserError(
                    f"process {rank}: found other data, another version or another checkpoint than process "
                    "0 has, expected the same; give all machines the same files, and the run folder"
                )
