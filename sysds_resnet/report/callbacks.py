"""Callbacks: objects that are told what a run does, so that other tools can watch it.

    class Slack(Callback):
        def record(self, event, values):
            if event == "epoch":
                requests.post(URL, json={"text": f"top-1 {values['val_top1']:.1%}"})

`train --callbacks my_module:Slack` attaches it to a run.
"""

from __future__ import annotations

import queue
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from sysds_resnet.errors import UserError, one_line
from sysds_resnet.report.guard import Guard


@dataclass(frozen=True)
class Run:
    """What a callback is told of a run that begins or goes on.

    Attributes:
        folder: The run folder, with config.yaml, metrics.jsonl and, after each epoch, curves.png. At the end
            of a finished run it also has weights.safetensors and results.md.
        settings: The settings of the run by name, as config.yaml has them.
        total_steps: The number of steps of the whole run.
        step: The number of steps that a resumed run had done before; otherwise 0.
        stop: A function that ends the run after the step under way, with a checkpoint, as Ctrl-C does.
    """

    folder: Path
    settings: Mapping[str, Any]
    total_steps: int
    step: int
    stop: Callable[[], None]


class Callback:
    """The base class of callbacks, whose methods do nothing; a subclass defines those that it needs.

    `begin` is called before the first step; an exception there ends the run. The other methods are called by
    a thread of their own, one after the other, so that the run does not wait for them. An exception there is
    printed, and the run goes on.
    """

    def begin(self, run: Run) -> None:
        """Is told of the run, once in a process."""

    def record(self, event: str, values: Mapping[str, Any]) -> None:
        """Is told what is written to metrics.jsonl.

        Args:
            event: The event of the line: "step", "epoch", "resources" or "micro_batch".
            values: The values of the line by name, such as "step", "epoch", "loss" and "val_top1".
        """

    def end(self, finished: bool) -> None:
        """Is told that the process ends its work on the run.

        Args:
            finished: Whether the run is finished, rather than stopped or ended by an error.
        """


def load_callbacks(names: Sequence[str]) -> list[Callback]:
    """Makes the callbacks that a command line names.

    Args:
        names: For each callback MODULE:CLASS; the class is called without arguments. Modules are found where
            Python finds them, and in the working directory.

    Raises:
        UserError: If a name is no such, or its module or class fails.
    """
    return [_load(name) for name in names]


def _load(name: str) -> Callback:
    module, colon, cls = name.partition(":")
    if not (module and colon and cls):
        raise UserError(f"callbacks: found {name!r}, expected MODULE:CLASS, such as my_module:MyCallback")
    if "" not in sys.path:  # the working directory, which python -m has there, but a command has not
        sys.path.append("")
    try:
        made = getattr(import_module(module), cls)()
    except Exception as error:  # the module is the user's
        raise UserError(
            f"callbacks: {name} cannot be made ({type(error).__name__}: {one_line(error)}), expected a class "
            "that is called without arguments; check the name and the module"
        ) from error
    if not isinstance(made, Callback):
        raise UserError(
            f"callbacks: found {name}, which is no Callback, expected a subclass of sysds_resnet.Callback"
        )
    return made


class Callbacks:
    """The callbacks of a run, which are told of it in the order of its events.

    Args:
        callbacks: The callbacks.
        note: A function that prints a line about a callback that fails.
    """

    def __init__(self, callbacks: Sequence[Callback], note: Callable[[str], None]) -> None:
        self._callbacks = list(callbacks)
        self._guard = Guard(note)
        self._calls: queue.SimpleQueue[Callable[[Callback], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()

    def begin(self, folder: Path, settings: Mapping[str, Any], total_steps: int, step: int) -> None:
        """Tells the callbacks of a run, unless they know of it; the arguments are those of `Run`.

        Raises:
            UserError: If a callback fails.
        """
        if self._thread is not None or not self._callbacks:
            return
        run = Run(folder, settings, total_steps, step, self._stop.set)
        for callback in self._callbacks:
            try:
                callback.begin(run)
            except UserError:
                raise
            except Exception as error:
                raise UserError(
                    f"callbacks: {_name(callback)} failed at the beginning ({type(error).__name__}: "
                    f"{one_line(error)}), expected it to begin; mend it, or leave it out"
                ) from error
        self._thread = threading.Thread(target=self._tell, name="callbacks", daemon=True)
        self._thread.start()

    def stopping(self) -> bool:
        """Tells whether a callback has asked for the run's end."""
        return self._stop.is_set()

    def record(self, event: str, values: Mapping[str, Any]) -> None:
        """Has the callbacks told of a line of metrics.jsonl; any thread may call this."""
        if self._thread is not None:
            self._calls.put(lambda callback: callback.record(event, dict(values)))

    def end(self, finished: bool) -> None:
        """Tells the callbacks that the work on the run ends, and waits until they know."""
        if self._thread is not None:
            self._calls.put(lambda callback: callback.end(finished))
            self._calls.put(None)
            self._thread.join()
            self._thread = None

    def _tell(self) -> None:
        while (call := self._calls.get()) is not None:
            for callback in self._callbacks:
                self._guard(_name(callback), partial(call, callback), "failed")


def _name(callback: Callback) -> str:
    return f"callback {type(callback).__name__}"
