"""Checkpoints: files that each hold the whole state of a run, and that appear whole or not at all.

They are written in the background. The engine never changes a matrix in place, so a snapshot is only a few
handles of matrices: training goes on while another thread copies the matrices out of the JVM and writes them.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from sysds_resnet.errors import UserError, one_line
from sysds_resnet.network.weights.containers import read_header
from sysds_resnet.network.weights.files import describe, weights_of_checkpoint, write_weights
from sysds_resnet.system.files import remove_temporary
from sysds_resnet.system.forks import Opener
from sysds_resnet.training.identity import check_identity
from sysds_resnet.training.progress import Progress
from sysds_resnet.training.retention import Retention, checkpoints, set_aside
from sysds_resnet.training.snapshot import fetch_tensors, handles_of, put_tensors
from sysds_resnet.training.state import State

FORMAT = 3
OLDER_FORMATS = (2,)  # are read too; they lack digests of the data, mean, std and machine
BEST_FILE = "best.safetensors"
RETRY_SECONDS = 60.0  # until the next attempt, after a checkpoint could not be written


class Checkpoints:
    """The checkpoints of a run, which are saved in the background, and of which the newest are kept.

    Use it in a `with` statement. The statement's end waits for the checkpoint that is being written, and
    raises an error if that could not be written, unless another error is already on its way.

    Args:
        folder: The folder of the checkpoints, whose names are step-NNNNNNNN.safetensors.
        identity: What a run that resumes must agree with, by name, as `restore` compares it.
        beside: The description of the weights (`Model.description`), which goes into each file so that a
            checkpoint can be read as a file of weights.
        keep: The number of newest checkpoints to keep; damaged ones that were set aside do not count.
        every_steps: The number of steps from one checkpoint to the next; None if only time counts.
        every_minutes: The minutes after which the next checkpoint is due.
        note: A function that is told of what could not be written.
    """

    def __init__(
        self,
        folder: Path,
        identity: Mapping[str, Any],
        beside: Mapping[str, Any],
        keep: int,
        every_steps: int | None,
        every_minutes: float,
        note: Callable[[str], None],
    ) -> None:
        self._folder, self._identity, self._beside = folder, dict(identity), dict(beside)
        self._retention, self._note = Retention(folder, keep, note), note
        self._every_steps, self._every_seconds = every_steps, 60 * every_minutes
        self._due = time.monotonic() + self._every_seconds
        self._saved: tuple[int, int] | None = None
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None
        self._failure: UserError | None = None
        self._opener = Opener("checkpoints", "save them in that process")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            remove_temporary(folder)
        except OSError as error:
            raise UserError(
                f"{folder}: cannot be made ({one_line(error)}), expected a folder for checkpoints; make "
                "room, or choose another --out"
            ) from error

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if not self._opener.here:
            return  # a forked process has no thread that writes
        self._wait()
        self._writer.shutdown()
        if self._failure is not None and kind is None:
            raise self._failure

    def save_if_due(self, state: State) -> None:
        """Saves the state if enough steps or minutes have passed since the last checkpoint.

        If that one could not be written, its failure is noted here, and the next attempt is due a minute
        later.
        """
        if self._writing is not None and self._writing.done():
            self._wait()
        on_step = self._every_steps is not None and state.progress.step % self._every_steps == 0
        if on_step or time.monotonic() >= self._due:
            self.save(state)

    def save(self, state: State, best: bool = False) -> None:
        """Saves the state as it is now, unless it is saved already; returns before it is written.

        Args:
            state: The state of the run.
            best: Whether to write its weights to best.safetensors in the run folder, too.
        """
        self._opener.check()
        self._wait()
        step = state.progress.step
        position = (step, state.progress.epoch)
        if position == self._saved:
            return
        self._saved = position
        self._due = time.monotonic() + self._every_seconds
        described = {**self._identity, "progress": asdict(state.progress)}  # a copy: training goes on
        path = self._folder / f"step-{step:08d}.safetensors"
        handles = handles_of(state)
        fetch = partial(fetch_tensors, state.model.network, handles)
        if state.model.engine.gpu:
            fetch = partial(dict, fetch())  # copied at once: a GPU does one thing at a time
        else:
            state.held = tuple(handles.values())
        self._writing = self._writer.submit(self._write, path, fetch, described, best)
        self._writing.add_done_callback(lambda _: setattr(state, "held", ()))

    def _wait(self) -> None:
        """Waits until the checkpoint that is being written is done or has failed."""
        if self._writing is None:
            return
        try:
            self._writing.result()
            self._failure = None
        except Exception as error:  # a disk or a JVM that failed, or memory that ran out
            self._failure = UserError(one_line(error))
            self._saved = None
            self._due = min(self._due, time.monotonic() + RETRY_SECONDS)
            self._note(f"checkpoint not saved: {one_line(error)}")
        finally:
            self._writing = None

    def _write(
        self,
        path: Path,
        fetch: Callable[[], dict[str, np.ndarray]],
        described: Mapping[str, Any],
        best: bool,
    ) -> None:
        tensors = fetch()
        for name, array in tensors.items():
            if not np.isfinite(array).all():
                raise UserError(
                    f"{path}: found NaN or infinity in {name}, expected finite numbers; go on from an "
                    "earlier checkpoint with a lower base_lr"
                )
        if best:
            weights = weights_of_checkpoint(tensors)
            try:
                write_weights(self._folder.parent / BEST_FILE, weights, metadata=describe(self._beside))
            except UserError as error:  # the disk may have room for the checkpoint all the same
                self._note(f"best weights not saved: {error}")
        write_checkpoint(path, described, tensors, describe(self._beside))
        self._retention.after(path)


def restore(
    folder: Path, state: State, identity: Mapping[str, Any], note: Callable[[str], None]
) -> Path | None:
    """Puts the newest intact checkpoint of a folder into a state.

    Newer ones that are damaged are then set aside: they are renamed, so that they do not count any more.

    Args:
        folder: The folder of the checkpoints.
        state: The state to change, of the same network.
        identity: Names and values, or mappings of names and values, that the checkpoint must agree with.
        note: A function that is told of each damaged checkpoint, and of what `check_identity` notes.

    Returns:
        The path of the checkpoint; None if there is none yet.

    Raises:
        UserError: If all checkpoints are damaged, or the newest intact one has another identity.
    """
    found, damaged = checkpoints(folder), []
    for path in reversed(found):
        try:
            described, tensors = read_checkpoint(path)
        except UserError as error:
            note(str(error))
            damaged.append(path)
            continue
        check_identity(path, identity, described, note)
        put_tensors(state, tensors, str(path))
        state.progress = Progress(**described["progress"])
        for other in damaged:
            set_aside(other, note)
        return path
    if found:
        raise UserError(
            f"{folder}: found {len(found)} checkpoints, all damaged, expected an intact one; start anew with "
            "another --out"
        )
    return None


def read_checkpoint(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Reads a checkpoint and gives its description (format, identity, progress) and its tensors by name.

    The names of the tensors begin with "model/", "average/", and "velocity/" or "first_moment/" and
    "second_moment/".

    Raises:
        UserError: If a single bit is not as it was written, or the format is an unknown one.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        described = json.loads(metadata["checkpoint"])
        if described["format"] not in (*OLDER_FORMATS, FORMAT):
            raise UserError(
                f"{path}: found checkpoint format {described['format']}, expected {FORMAT}; resume with the "
                "version of sysds-resnet that wrote it"
            )
        if metadata.pop("sha256") != _digest(metadata, tensors):
            raise ValueError("its checksum does not match")
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: found a damaged checkpoint ({one_line(error)}), expected one as it was written; it is "
            "not used"
        ) from error
    return described, tensors


def last_description(folder: Path) -> dict[str, Any]:
    """Gives the description in the newest checkpoint of a folder whose header can be read; empty for none.

    The tensors are not read, and the checksum is not verified.
    """
    for path in reversed(checkpoints(folder)):
        with suppress(UserError, ValueError, KeyError):
            described = json.loads(read_header(path)["checkpoint"])
            if isinstance(described, dict):
                return described
    return {}


def write_checkpoint(
    path: Path,
    described: Mapping[str, Any],
    tensors: Mapping[str, np.ndarray],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Writes a checkpoint for `read_checkpoint`, whole or not at all, with `metadata` in its header, too.

    Raises:
        UserError: If the disk does not take it.
    """
    text = json.dumps({"format": FORMAT, **described})
    metadata = {"format": "pt", **(metadata or {}), "checkpoint": text}
    write_weights(path, tensors, metadata={**metadata, "sha256": _digest(metadata, tensors)})


def _digest(metadata: Mapping[str, str], tensors: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name, array in sorted(tensors.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
