"""Which checkpoints of a run stay on the disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sysds_resnet.errors import one_line

PATTERN = "step-*.safetensors"
DAMAGED = ".damaged"  # after the name of one that is set aside


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, oldest first; those set aside are not among them."""
    return sorted(folder.glob(PATTERN))


def step_of(path: Path) -> int:
    """The number of steps that were done when a checkpoint was saved, from its name; -1 for other names."""
    number = path.stem.partition("-")[2]
    return int(number) if number.isdigit() else -1


def set_aside(path: Path, note: Callable[[str], None]) -> None:
    """Renames a damaged checkpoint, so that it is neither read nor counted again; it is not removed."""
    try:
        path.replace(path.with_name(path.name + DAMAGED))
    except OSError as error:
        note(f"{path}: damaged, and not renamed ({one_line(error)})")


class Retention:
    """Removes the oldest checkpoints of a folder.

    Args:
        folder: Where they lie.
        keep: How many of the newest stay.
        note: Told once of each that cannot be removed.
    """

    def __init__(self, folder: Path, keep: int, note: Callable[[str], None]) -> None:
        self._folder, self._keep, self._note = folder, keep, note
        self._noted: set[Path] = set()

    def after(self, written: Path) -> None:
        """Removes those that are too many, now that one was written, which stays in any case.

        Those of later steps do not count and stay: the run has gone back before them, as they are damaged.
        """
        older = [path for path in checkpoints(self._folder) if step_of(path) < step_of(written)]
        for path in older[: max(0, len(older) + 1 - self._keep)]:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                if path not in self._noted:
                    self._note(f"{path}: not removed ({one_line(error)}); remove it by hand")
                self._noted.add(path)
