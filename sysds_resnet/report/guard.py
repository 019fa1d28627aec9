"""What only reports must not end a run: errors of reporters are noted, and the run goes on."""

from __future__ import annotations

from collections.abc import Callable

from sysds_resnet.errors import one_line


class Guard:
    """A function that calls reporters and notes their errors, once each until they succeed again.

    Args:
        note: A function that prints a line.
    """

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note = note
        self._failing: set[str] = set()

    def __call__(self, what: str, report: Callable[[], object], failed: str = "not written") -> None:
        """Calls a reporter.

        Args:
            what: The name of what is reported to.
            report: The reporter.
            failed: What is said of it if it fails.
        """
        try:
            report()
            self._failing.discard(what)
        except Exception as error:
            if what not in self._failing:
                self._failing.add(what)
                self._note(f"{what} {failed}: {one_line(error)}; the run goes on")
