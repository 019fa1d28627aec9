"""The scalars of a run for TensorBoard: event files in the folder tensorboard/ of the run folder."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sysds_resnet.errors import one_line
from sysds_resnet.report.metrics import scalars
from sysds_resnet.system.extras import extra

FOLDER = "tensorboard"


class TensorBoardFile:
    """An event file, into which any thread may write what goes to metrics.jsonl as well.

    A scalar is in the file once `write` returns, so that a killed run loses none. If the disk does not take
    scalars, the run goes on, and they wait in memory for the next ones. The format is that of tensorboard's
    own classes, without its threaded writer.

    Args:
        folder: The run folder.
        step: The number of steps done by the run that is resumed. What its files hold of later steps is
            marked as gone, and readers leave it out (TensorBoard itself, once a new value of the same tag has
            come).
        note: A function that is told once of a disk that does not take scalars.

    Raises:
        UserError: If the package tensorboard is not installed.
    """

    def __init__(self, folder: Path, step: int = 0, note: Callable[[str], None] = lambda text: None) -> None:
        with extra("tensorboard", "tensorboard"):
            from tensorboard.compat.proto.event_pb2 import Event, SessionLog
            from tensorboard.compat.proto.summary_pb2 import Summary
            from tensorboard.summary.writer.record_writer import RecordWriter
        self._event, self._summary, self._note = Event, Summary, note
        self._waiting = io.BytesIO()
        self._records = RecordWriter(self._waiting)
        self._lock = threading.Lock()
        self._noted, self._size = False, 0  # bytes of whole records
        now = time.time_ns()
        # readers take the files of a folder in the order of their names
        self._path = folder / FOLDER / f"events.out.tfevents.{now // 10**9:010d}.{now % 10**9:09d}"
        # readers drop what comes before a start record and has its step or a later one
        start = SessionLog(status=SessionLog.START)
        self._append(
            Event(wall_time=now / 1e9, file_version="brain.Event:2"),
            Event(wall_time=now / 1e9, step=step + 1, session_log=start),
        )

    def write(self, event: str, **values: Any) -> None:
        """Adds the scalars of one line of metrics.jsonl.

        Args:
            event: The event of the line: "step", "epoch" or "resources"; others are left out.
            values: The values by name: "step", "time" in Unix seconds (by default now), and the figures, of
                which None is left out.
        """
        found = [
            self._summary.Value(tag=tag, simple_value=value) for tag, value in scalars(event, values).items()
        ]
        if found:
            when, summary = values.get("time", time.time()), self._summary(value=found)
            self._append(self._event(wall_time=when, step=values["step"], summary=summary))

    def _append(self, *events: Any) -> None:
        with self._lock:
            for event in events:
                self._records.write(event.SerializeToString())
            records = self._waiting.getvalue()
            try:
                self._path.parent.mkdir(exist_ok=True)
                with open(self._path, "ab") as file:
                    file.truncate(self._size)  # drops the part of a record that a full disk took
                    file.write(records)
            except OSError as error:
                if not self._noted:
                    self._note(f"{self._path}: not written ({one_line(error)}); its scalars wait in memory")
                self._noted = True
                return
            self._size += len(records)
            self._waiting.seek(0)
            self._waiting.truncate()
            self._noted = False
