"""The treatment of images that cannot be read: an error, or a row of bad_images.csv."""

from __future__ import annotations

import csv
import errno
import io
import os
from collections.abc import Sequence
from pathlib import Path

from sysds_resnet.batches.settings import ReadingSettings
from sysds_resnet.errors import UserError, one_line
from sysds_resnet.images import Dataset
from sysds_resnet.system.console import warn
from sysds_resnet.system.csv_cells import to_cell

BAD_IMAGES_FILE = "bad_images.csv"


_COLUMNS = ("name", "class", "reason")


class BadImages:
    """The images that could not be read: they raise an error, or are written down until there are too many.

    Args:
        settings: The settings, which say whether to raise, and how many of a data set are too many.
        folder: The folder of bad_images.csv, which is made with the first image, or continued if it is there.

    Attributes:
        path: The path of bad_images.csv.
    """

    def __init__(self, settings: ReadingSettings, folder: Path) -> None:
        self._settings = settings
        self.path = folder / BAD_IMAGES_FILE
        self._found: dict[int, set[int]] = {}  # positions by the id of the data set
        self._waiting: list[Sequence[str]] = []  # rows that the disk has not taken
        self._noted = False
        self._listed = _names_in(self.path)  # names as they stand in cells

    def __len__(self) -> int:
        """Gives the number of images that this object was told of."""
        return sum(map(len, self._found.values()))

    def __call__(self, dataset: Dataset, index: int, reason: str) -> None:
        """Raises an error for an image that cannot be read, or writes it down; the `OnError` of a stream.

        Raises:
            UserError: If images are not to be skipped, or too many of the data set's cannot be read.
        """
        if self._settings.on_error == "raise":
            raise UserError(f"{reason}, or leave it out with --on-error skip")
        found = self._found.setdefault(id(dataset), set())
        if index in found:
            return
        found.add(index)
        name, n = to_cell(dataset.name(index)), len(dataset)
        if name not in self._listed:
            self._listed.add(name)
            label = dataset.classes[dataset.labels[index]] if dataset.classes else ""
            self._waiting.append((name, to_cell(label), to_cell(reason)))
            self._write()
        if len(found) > self._settings.max_bad * n:
            raise UserError(
                f"{self.path}: found {len(found)} images that cannot be read, expected no more than "
                f"{self._settings.max_bad:g} of {n}; repair or remove them, or raise --max-bad"
            )

    def _write(self) -> None:
        """Appends the rows that wait; a disk that does not take them only lets them wait longer."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "a+b", buffering=0) as file:
                size = file.seek(0, os.SEEK_END)
                text = io.StringIO(newline="")
                csv.writer(text).writerows([_COLUMNS, *self._waiting] if size == 0 else self._waiting)
                data = text.getvalue().encode("utf-8", "backslashreplace")
                if file.write(data) < len(data):
                    file.truncate(size)
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            if not self._noted:
                warn(f"{self.path}: not written ({one_line(error)}); its lines wait in memory")
            self._noted = True
            return
        self._waiting, self._noted = [], False


def _names_in(path: Path) -> set[str]:
    """Gives the names of the images that a bad_images.csv lists; none where it cannot be read."""
    try:
        with open(path, newline="", encoding="utf-8", errors="replace") as file:
            return {row["name"] for row in csv.DictReader(file) if row.get("name") and row.get("reason")}
    except (OSError, csv.Error):
        return set()
