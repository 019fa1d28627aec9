"""The folder of a run, which one process at a time makes and holds, and the run's settings in it."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import partial
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Any

import yaml

from sysds_resnet.classes.file import CLASSES_FILE
from sysds_resnet.engine.jvm.process import CRASH_FILES, LOG_FILE
from sysds_resnet.errors import UserError, one_line
from sysds_resnet.report.metrics import FILE_NAME as METRICS_FILE
from sysds_resnet.report.metrics import read_lines
from sysds_resnet.settings.command_line import build
from sysds_resnet.settings.fields import names_where
from sysds_resnet.settings.yaml_files import read_yaml
from sysds_resnet.system.files import is_temporary, remove_temporary, write_whole
from sysds_resnet.system.folder_lock import LOCK_FILE, FolderLock
from sysds_resnet.training.settings import TrainSettings

CONFIG_FILE = "config.yaml"
CHECKPOINTS_FOLDER = "checkpoints"
OUTPUT_FILE = "output.log"
"""The file to which a run on a cluster prints, for the driver to print it again."""

_RETIRED = {"scratch"}  # settings of older versions that decide nothing any more
_NOT_OF_RUNS = {"amp", "config", "debug", "dry_run", "out", "resume"}  # settings of the command alone


@contextmanager
def run_folder(settings: TrainSettings, note: Callable[[str], None]) -> Iterator[Path]:
    """Makes the folder of a new run, or takes that of a resumed one, and holds it within a `with` statement.

    What killed processes left there unfinished is removed. A new folder is removed again if the run ends
    before it has written its settings.

    Raises:
        UserError: If the folder cannot be made, has other files in it, or another process is at work there.
    """
    new = settings.resume is None
    folder = _make(settings) if new else settings.resume
    try:
        with FolderLock(folder, "a run", note):
            if new:
                _check_unused(folder)
            for place in (folder, folder / CHECKPOINTS_FOLDER):
                if place.is_dir():
                    remove_temporary(place, shared=place == folder)  # plot or convert may be writing there
            try:
                yield folder
            finally:
                if new and not (folder / CONFIG_FILE).exists():
                    for name in (LOG_FILE, OUTPUT_FILE):
                        (folder / name).unlink(missing_ok=True)
    finally:
        if new:
            with suppress(OSError):
                folder.rmdir()  # fails, as it should, if there is something in it


def _make(settings: TrainSettings) -> Path:
    """Makes the folder of a new run; one whose name was given may be there already."""
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    default = Path("runs") / f"{Path(settings.dataset).name}-{settings.model}-{stamp}"
    folder = settings.out or default
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        for number in count(2):
            try:
                folder.mkdir()
                return folder
            except FileExistsError:
                if settings.out is None:  # another run began in the same second
                    folder = default.with_name(f"{default.name}-{number}")
                elif folder.is_dir():
                    return folder
                else:
                    raise UserError(
                        f"{folder}: found a file there, expected a new or empty run folder; choose another "
                        "--out"
                    ) from None
    except (OSError, ValueError) as error:
        cause = "a file is in its way" if isinstance(error, FileExistsError) else one_line(error)
        raise UserError(
            f"{folder}: cannot be made ({cause}), expected a folder for the run; choose another --out"
        ) from error


def _check_unused(folder: Path) -> None:
    """Refuses a folder that holds more than what a run without a step leaves, and removes this."""
    left = _left_without_a_step(folder)
    if all(path in left or _of_a_start(path) for path in folder.iterdir()):
        for path in left:
            path.rmdir() if path.is_dir() else path.unlink()
        return
    resume = ""
    if (folder / CONFIG_FILE).exists():
        resume = f", or continue that run with --resume {shlex.quote(str(folder))}"
    raise UserError(
        f"{folder}: found files there, expected a new or empty run folder; choose another --out{resume}"
    )


def _left_without_a_step(folder: Path) -> list[Path]:
    """Gives the files by which a run that has done no step could be resumed; none if there is no such run."""
    written = [folder / name for name in (CONFIG_FILE, CLASSES_FILE, METRICS_FILE)]
    checkpoints = folder / CHECKPOINTS_FOLDER
    if not all(path.is_file() for path in written):
        return []
    if any(line["event"] in ("step", "epoch") for line in read_lines(folder / METRICS_FILE)):
        return []
    if not checkpoints.is_dir():
        return written
    return [] if any(checkpoints.iterdir()) else [*written, checkpoints]


def _of_a_start(path: Path) -> bool:
    known = path.name in (LOCK_FILE, LOG_FILE, OUTPUT_FILE) or path.match(CRASH_FILES)
    return known or is_temporary(path)


def read_config(folder: Path) -> dict[str, Any]:
    """Reads the settings that a run began with from its folder.

    Raises:
        UserError: If it is not the folder of a run, or its settings cannot be read or are unknown here.
    """
    path = folder / CONFIG_FILE
    try:
        if not folder.is_dir():
            found = "a file" if folder.exists() else "no such folder"
            raise UserError(f"{folder}: found {found}, expected the folder of a run; check --resume")
        if not path.exists():
            raise UserError(
                f"{folder}: found no {CONFIG_FILE}, expected the folder of a run that has begun; check "
                "--resume, or start a run with --out"
            )
    except OSError as error:  # a name that is too long, a folder that may not be looked into
        raise UserError(
            f"{folder}: cannot be read ({one_line(error)}), expected the folder of a run"
        ) from error
    values = {name: value for name, value in read_yaml(path).items() if name not in _RETIRED}
    unknown = [name for name in values if name not in TrainSettings.model_fields]
    if unknown:
        raise UserError(
            f"{path}: found the setting {unknown[0]}, which this version, {version('sysds-resnet')}, does "
            "not know; resume with the version that wrote it, or remove what was added by hand"
        )
    try:
        build(TrainSettings, values)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    return values


def run_of(path: Path) -> Path | None:
    """Gives the run folder that a path is, or in which a file of weights or a checkpoint lies, or None."""
    folder = path.resolve()
    if not folder.is_dir():
        folder = folder.parent
        folder = folder.parent if folder.name == CHECKPOINTS_FOLDER else folder
    return folder if all((folder / name).is_file() for name in (CONFIG_FILE, METRICS_FILE)) else None


def check_settings(settings: TrainSettings, folder: Path) -> None:
    """Checks the settings of a run that is resumed against those it began with.

    Raises:
        UserError: If a setting that decides what the weights become differs.
    """
    before = build(TrainSettings, read_config(folder)).fixed()
    for name, value in settings.fixed().items():
        if value != before[name]:
            raise UserError(
                f"{name}: found {value}, expected {before[name]} as in {folder / CONFIG_FILE}; resume with "
                "what the run began with, or start another from its weights with --init-from"
            )


def update_config(folder: Path, settings: TrainSettings, step: int) -> set[str]:
    """Updates config.yaml if a resumed run has its data elsewhere now, more epochs, or another micro-batch.

    Args:
        folder: The folder of the run.
        settings: The settings of the resumed run, resolved.
        step: The step from which the run goes on.

    Returns:
        The names of the settings that were changed.
    """
    before = build(TrainSettings, read_config(folder))
    changed = {
        name: getattr(settings, name)
        for name in (*names_where(TrainSettings, resume="place"), "epochs", "micro_batch")
        if getattr(settings, name) != getattr(before, name)
    }
    if changed:
        texts = [f"{name} {value} in place of {getattr(before, name)}" for name, value in changed.items()]
        write_config(
            folder, before.model_copy(update=changed), f"{', '.join(texts)} from step {step} on, as asked for"
        )
    return set(changed)


def write_config(folder: Path, settings: TrainSettings, remark: str | None = None) -> None:
    """Writes the settings of a run into its folder, below the remarks on earlier changes and on a new one.

    Raises:
        UserError: If the disk does not take them.
    """
    path = folder / CONFIG_FILE
    remarks = re.findall(r"^# .*\n", path.read_text("utf-8"), re.MULTILINE) if path.exists() else []
    if remark is not None:
        remarks.append(f"# {' '.join(remark.split())}\n")
    write_texts({path: "".join(remarks) + config_text(settings)})


def config_text(settings: TrainSettings) -> str:
    """Gives the settings of the run as YAML."""
    return yaml.safe_dump(values_of_run(settings), sort_keys=False)


def values_of_run(settings: TrainSettings) -> dict[str, Any]:
    """Gives the settings by name, without those of the command that do not belong to the run."""
    return settings.model_dump(mode="json", exclude=_NOT_OF_RUNS)


def write_texts(texts: Mapping[Path, str]) -> None:
    """Writes small files, each whole or not at all.

    Raises:
        UserError: If the disk does not take them.
    """
    try:
        write_whole({path: partial(_write_text, text=text) for path, text in texts.items()})
    except OSError as error:
        names = ", ".join(map(os.fspath, texts))
        raise UserError(
            f"{names}: cannot be written ({one_line(error)}), expected room in the run folder; make room, or "
            "choose another --out"
        ) from error


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
