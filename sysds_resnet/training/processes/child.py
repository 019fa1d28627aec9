"""A process that was started to train with others, as those see it that start it and watch over it."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO

from sysds_resnet.errors import EngineDied, error_of
from sysds_resnet.training.processes.job import Job

_GRACE_SECONDS = 3.0
_MOST_NAMED = 8

_LOOK_SECONDS = 0.2


class Child:
    """A process that trains with others, and what it has told.

    `close` ends it at once, and with it its JVM and its readers of images, which do not outlive it.

    Args:
        job: What the process is to do.
        log: The file for what it prints; None for the standard output and error of this process.
        environment: Its environment variables; by default those of this process.

    Attributes:
        rank: The number of the process.
        told: The last event of each kind by the kind's name. "ready": it has started; "tracker": how the
            others find the first process; "step": how far it is; "finished": whether the run is, at its end.
            "waited": the seconds that it has waited for another process; "lost": that another one is gone;
            "error" and "kind": the message of an error, and its class.
    """

    def __init__(
        self, job: Job, log: BinaryIO | None = None, environment: Mapping[str, str] | None = None
    ) -> None:
        self.rank = job.rank
        self.told: dict[str, Any] = {}
        self._log, self._rest = log, b""
        reading, writing = os.pipe()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "sysds_resnet.training.processes.member", str(writing)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                pass_fds=[writing],
                env=environment,
                text=True,
                start_new_session=True,  # the terminal's Ctrl-C is for whoever started it
            )
        finally:
            os.close(writing)
        os.set_blocking(reading, False)
        self._events = os.fdopen(reading, "rb", buffering=0)
        self._send(job.to_line())

    @property
    def running(self) -> bool:
        """Whether the process has not ended."""
        return self._process.poll() is None

    @property
    def failed(self) -> bool:
        """Whether the process has failed, or another one that it waits for."""
        bad = {"waited", "lost", "error"} & self.told.keys()
        return bool(bad) or (not self.running and self._process.returncode != 0)

    @property
    def grace(self) -> float:
        """The seconds for which its failure, which may follow from another one, waits for the cause.

        They are more after a wait in vain, which begins sooner in processes that compute faster.
        """
        return max(_GRACE_SECONDS, self.told.get("waited", 0) / 20)

    def order(self, **order: object) -> None:
        """Sends the process an order, unless it is gone: {"stop": True}, or what lets it begin."""
        self._send(json.dumps(order))

    def listen(self) -> Iterator[dict[str, Any]]:
        """Gives the events that it has told since the last call; they are in `told`, too."""
        while data := self._events.read(65536):
            self._rest += data
        *lines, self._rest = self._rest.split(b"\n")
        for line in lines:
            event = json.loads(line)
            self.told |= event
            yield event

    def error(self) -> Exception:
        """Gives the error of a process that has failed."""
        told, code = self.told, self._process.poll()
        if told.get("kind") == "failure":
            return RuntimeError(f"process {self.rank} failed:\n{told['error']}")
        if "error" in told:
            return error_of(told["kind"], told["error"])
        if "lost" in told:
            return EngineDied(told["lost"])
        if "waited" in told:
            return EngineDied(
                f"process {self.rank}: found no answer of another process for {told['waited']:g} s, expected "
                "one; see what holds it up, or allow for more with --peer-timeout"
            )
        how = signal.Signals(-code).name if code and code < 0 else f"exit code {code}"
        return EngineDied(
            f"process {self.rank}: found it ended by {how}{self._last_words()}, expected it to work to the "
            "end of the run"
        )

    def close(self) -> None:
        """Ends the process, if it has not ended."""
        self._process.kill()
        self._process.wait()
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        self._events.close()

    def fileno(self) -> int:
        """Gives the number of the file of its events, for `select`."""
        return self._events.fileno()

    def _send(self, line: str) -> None:
        with contextlib.suppress(OSError):
            self._process.stdin.write(f"{line}\n")
            self._process.stdin.flush()

    def _last_words(self) -> str:
        """Gives the last line that it printed, if that was kept."""
        if self._log is None:
            return ""
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return f" ({lines[-1]})" if lines else ""


def no_answer(silent: Sequence[str], seconds: float) -> EngineDied:
    """Gives the error of processes that others have waited for in vain.

    Args:
        silent: The processes that do not wait themselves, such as "3" or "3 on host-7".
        seconds: The seconds for which the others have waited.
    """
    more = f" and {len(silent) - _MOST_NAMED} more" if len(silent) > _MOST_NAMED else ""
    return EngineDied(
        f"process {', '.join(silent[:_MOST_NAMED])}{more}: found no answer for {seconds:g} s, in which the "
        "others waited for it, expected one; see what holds it up, or allow for more with --peer-timeout"
    )


def listen_to(children: Sequence[Child]) -> Iterator[tuple[Child, dict[str, Any]]]:
    """Waits a moment for events of processes, and gives those that came."""
    # the file of a process that has ended is ready for ever
    waiting = [child for child in children if child.running]
    if waiting:
        select.select(waiting, [], [], _LOOK_SECONDS)
    for child in children:
        for event in child.listen():
            yield child, event
