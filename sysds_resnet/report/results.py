"""The results of finished runs, which are computed from config.yaml and metrics.jsonl alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

from sysds_resnet.errors import UserError
from sysds_resnet.report.metrics import FILE_NAME, read_lines
from sysds_resnet.settings.yaml_files import read_yaml

GIB = 2**30


PRECISIONS = {"single": "FP32", "bf16": "AMP", "double": "FP64"}  # by the setting, in the order of the tables


NOT_MEASURED = "not measured"


Line = dict[str, Any]


@dataclass(frozen=True)
class Results:
    """The results of a run.

    Attributes:
        run: The name of the run folder.
        model, image_size: The network, and the side of its training images in pixels.
        precision: The precision of matrix multiplies: FP32, AMP (bf16) or FP64.
        device: What computed, "cpu" or "gpu".
        cards: The number of shares that a batch is divided into, which are its micro-batches: the cards of a
            run on GPUs, and the workers of one on CPUs.
        batch_size: The number of images in a share.
        criterion: The criterion by which training ends.
        top1: The validation top-1 after the last epoch that was validated, from 0 to 1.
        images: The number of training images seen, with repetitions.
        train_seconds: The seconds spent on these in all sessions, with waiting for data, but without what a
            killed session lost.
        evaluation_seconds: The seconds spent on validations; None if the lines have no times.
        images_per_s: The throughput, images / train_seconds.
        power_w: The mean power of all GPUs together over the samples.
        rss_gib, gpu_gib: The most memory of all processes, and of all GPUs.
        scalability: images_per_s, divided by cards times the baseline's images_per_s; None without a
            baseline.
        stability: 1 if there are no disturbances, else 0.
        disturbances: Steps left out, resumes within an epoch, an end before the criterion; a resume at the
            end of an epoch leaves no trace.
    """

    run: str
    model: str
    image_size: int | None
    precision: str
    device: str
    cards: int
    batch_size: int
    criterion: str
    top1: float | None
    images: int
    train_seconds: float
    evaluation_seconds: float | None
    images_per_s: float
    power_w: float | None
    rss_gib: float | None
    gpu_gib: float | None
    scalability: float | None
    stability: int
    disturbances: list[str]

    @property
    def share(self) -> str:
        """The name of a share of a batch."""
        return "card" if self.device == "gpu" else "worker"

    @property
    def seconds(self) -> float:
        """The seconds of training and validation."""
        return self.train_seconds + (self.evaluation_seconds or 0.0)


def results_row(folder: Path, baseline: Results | None = None) -> Results:
    """Computes the results of a run, over all its sessions if it was resumed.

    Args:
        folder: The run folder.
        baseline: The results of a run on one card, to compare with if its network, image size and precision
            are the same.

    Raises:
        UserError: If there is no run in the folder, it has no step, or the baseline has several cards.
    """
    config = read_yaml(folder / "config.yaml")
    path = folder / FILE_NAME
    try:
        lines = read_lines(path)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: found no readable file, expected that of a run; train first") from error
    steps, epochs, resources = (
        [line for line in lines if line["event"] == event] for event in ("step", "epoch", "resources")
    )
    if not steps and not epochs:
        raise UserError(f"{path}: found no step, expected at least one; train for longer")
    try:
        cards, batch_size = _shares(config)
        n, seconds, resumed = _training(steps, epochs, config["batch_size"])
        images = n * config["batch_size"]
        disturbances = _disturbances(config, steps, epochs, resumed)
        threshold = config.get("acc_thresh")
        results = Results(
            run=folder.resolve().name,
            model=config["model"],
            image_size=config["image_size"],
            precision=PRECISIONS[config["precision"]],
            device="gpu" if config.get("device", "cpu") != "cpu" or config.get("gpus") else "cpu",
            cards=cards,
            batch_size=batch_size,
            criterion=f"{config['epochs']} epochs" if threshold is None else f"top1 {threshold:g}%",
            top1=_top1(epochs),
            images=images,
            train_seconds=seconds,
            evaluation_seconds=_evaluation(steps, epochs, config["batch_size"]),
            images_per_s=images / seconds,
            power_w=_over(resources, "gpu_power_w", mean),
            rss_gib=_over(resources, "rss_bytes", max, GIB),
            gpu_gib=_over(resources, "gpu_memory_bytes", max, GIB),
            scalability=None,
            stability=int(not disturbances),
            disturbances=disturbances,
        )
    except (KeyError, TypeError, ZeroDivisionError) as error:
        message = f"{folder}: found files of another kind ({error}), expected those of a run; choose one"
        raise UserError(message) from error
    return results if baseline is None else _compared(results, baseline)


def _training(steps: Sequence[Line], epochs: Sequence[Line], batch_size: int) -> tuple[int, float, list[int]]:
    """Gives the number of steps, the seconds that they took, and the epochs that were resumed.

    The line of an epoch has the seconds of all steps since the epoch began or was resumed. Earlier steps, and
    those of an epoch that has no line yet, count with the mean of their own lines, which only some may have.
    """
    begin, seconds, resumed = 0, 0.0, []
    for epoch in sorted({line["epoch"] for line in (*steps, *epochs)}):
        logged = [line for line in steps if line["epoch"] == epoch]
        ends = [line for line in epochs if line["epoch"] == epoch]
        end = max(line["step"] for line in (*logged, *ends))
        covered = sum(_covered(line, batch_size) for line in ends)
        known = sum(line["seconds"] for line in ends)
        rest = end - begin - covered
        earlier = [line["seconds"] for line in logged if line["step"] <= begin + rest]
        seconds += known + rest * (mean(earlier) if earlier else known / max(covered, 1))
        if ends and rest:
            resumed.append(epoch)
        begin = end
    return begin, seconds, resumed


def _covered(epoch: Line, batch_size: int) -> int:
    """Gives the number of steps that an epoch's line is about; 0 if it was resumed after its last step."""
    return round((epoch["images_per_s"] or 0.0) * epoch["seconds"] / batch_size)


def _evaluation(steps: Sequence[Line], epochs: Sequence[Line], batch_size: int) -> float | None:
    """Gives the seconds of all validations, each from an epoch's last logged step to the epoch's line.

    The steps in between are subtracted. Where a resume lies in between, too, the mean of the others counts.
    """
    found = []
    validated = [line for line in epochs if line["val_loss"] is not None]
    for epoch in validated:
        covered = _covered(epoch, batch_size)
        logged = [s for s in steps if epoch["step"] - covered < s["step"] <= epoch["step"] and "time" in s]
        if logged and "time" in epoch:
            unlogged = (epoch["step"] - logged[-1]["step"]) * epoch["seconds"] / covered
            found.append(max(epoch["time"] - logged[-1]["time"] - unlogged, 0.0))
    if not validated:
        return 0.0
    return mean(found) * len(validated) if found else None


def _shares(config: Line) -> tuple[int, int]:
    """Gives the number of cards, and the number of images on each."""
    whole, part = config["batch_size"], config["micro_batch"]
    return (whole // part, part) if isinstance(part, int) else (1, whole)


def _disturbances(
    config: Line, steps: Sequence[Line], epochs: Sequence[Line], resumed: list[int]
) -> list[str]:
    skipped = sum(line.get("skipped", False) for line in steps)
    done, threshold = epochs[-1]["epoch"] if epochs else 0, config.get("acc_thresh")
    reached = done == config["epochs"] if threshold is None else 100 * (_top1(epochs) or 0) >= threshold
    found = {
        f"{skipped} steps skipped": skipped,
        f"resumed in epoch {', '.join(map(str, resumed))}": resumed,
        f"not there after {done} epochs": not reached,
    }
    return [text for text, holds in found.items() if holds]


def _top1(epochs: Sequence[Line]) -> float | None:
    return next((line["val_top1"] for line in reversed(epochs) if line["val_top1"] is not None), None)


def _over(lines: Sequence[Line], name: str, function: Any, unit: float = 1.0) -> float | None:
    values = [line[name] for line in lines if line.get(name) is not None]
    return function(values) / unit if values else None


def _compared(results: Results, baseline: Results) -> Results:
    if baseline.cards != 1:
        raise UserError(
            f"baseline: found {baseline.run} with {baseline.cards} {baseline.share}s, expected 1; choose "
            "another"
        )
    alike = ("model", "image_size", "precision")
    if any(getattr(results, name) != getattr(baseline, name) for name in alike):
        return results
    ratio = results.images_per_s / (results.cards * baseline.images_per_s)
    return replace(results, scalability=ratio)
