"""Ctrl-C, SIGTERM and a closed terminal as a wish to stop, for loops that ask whether there is one."""

from __future__ import annotations

import signal
import sys
import threading
from contextlib import suppress
from types import TracebackType


class StopSignals:
    """A handler of signals for a `with` statement; a call tells whether SIGINT, SIGTERM or SIGHUP has come.

    A second signal acts as usual. SIGHUP stays ignored if it already is, as by nohup. Outside the main
    thread, where no handlers may be set, nothing changes.
    """

    _NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self) -> None:
        self._stopped = threading.Event()
        self._before: dict[int, object] = {}

    def __call__(self) -> bool:
        """Tells whether a signal has come."""
        return self._stopped.is_set()

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in self._NUMBERS:
                if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._restore()

    def _handle(self, _number: int, _frame: object) -> None:
        self._stopped.set()
        self._restore()
        with suppress(OSError):  # the terminal may be gone
            print("\nstopping after this step; once more to stop at once", file=sys.stderr)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
