"""The retention of checkpoints: which of them stay on the disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sysds_resnet.errors import one_line

PATTERN = "step-*.safetensors"
DAMAGED = ".damaged"  # is added to the name of a checkpoint that is set aside


def checkpoints(folder: Path) -> list[Path]:
    """Gives the checkpoints in a folder, oldest first, without those that were set aside."""
    return sorted(folder.glob(PATTERN))


def step_of(path: Path) -> int:
    """Gives the number of steps that a checkpoint has in its name; -1 for other names."""
    number = path.stem.partition("-")[2]
    return int(number) if number.isdigit() else -1


def set_aside(path: Path, note: Callable[[str], None]) -> None:
    """Renames a damaged checkpoint, so that it is neither read nor counted again; it is not removed."""
    try:
        path.replace(path.with_name(path.name + DAMAGED))
    except OSError as error:
        note(f"{path}: damaged, and not renamed ({one_line(error)})")


class Retention:
    """The retention of a folder's checkpoints, which removes the oldest ones.

    Args:
        folder: The folder of the checkpoints.
        keep: The number of newest checkpoints that stay.
        note: A function that is told once of each checkpoint that cannot be removed.
    """

    def __init__(self, folder: Path, keep: int, note: Callable[[str], None]) -> None:
        self._folder, self._keep, self._note = folder, keep, note
        self._noted: set[Path] = set()

    def after(self, written: Path) -> None:
        """Removes the checkpoints that are too many, now that one was written, which stays in any case.

        Those of later steps do not count and stay: they are damaged, and the run has gone back before them.
        """
        older = [path for path in checkpoints(self._folder) if step_of(path) < step_of(written)]
        for path in older[: max(0, len(older) + 1 - self._keep)]:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                if path not in self._noted:
                    self._note(f"{path}: not removed ({one_line(error)}); remove it by hand")
                self._noted.add(path)
