"""Trains a network: python -m sysds_resnet.train."""

from __future__ import annotations

import math
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import yaml
from pydantic import Field
from tqdm import tqdm

from sysds_resnet import checkpoint
from sysds_resnet.engine import Engine
from sysds_resnet.engine.blas import Blas, Precision
from sysds_resnet.engine.memory import parse_size
from sysds_resnet.errors import UserError
from sysds_resnet.images import ArrayDataset, Dataset, open_dataset
from sysds_resnet.loop import EpochEvent, StepEvent, choose_micro_batch, training_loop
from sysds_resnet.metrics import MetricsFile
from sysds_resnet.model import ResNet
from sysds_resnet.plots import plot_curves
from sysds_resnet.profiling import StepProfiler
from sysds_resnet.settings import Settings, build, parse, read_yaml, run
from sysds_resnet.state import Optimizer, State

# What a resumed run may change: everything else decides what the weights become.
FREE_SETTINGS = {"config", "debug", "out", "resume", "heap", "workers", "log_every", "profile"}


class TrainSettings(Settings):
    """Trains a ResNet with LARS on SystemDS; without options, ResNet-50 on handwritten digits."""

    dataset: str = Field("digits", description="digits, synthetic, or a folder with train/ and val/.")
    model: Literal["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"] = Field(
        "resnet50", description="Network."
    )
    image_size: int | None = Field(
        None, ge=32, description="Side of the images in pixels; by default 32, or 224 for a folder."
    )
    epochs: int = Field(8, ge=1, description="Passes over the training images.")
    batch_size: int = Field(64, ge=1, description="Images in a step.")
    micro_batch: int | None = Field(
        None, ge=1, description="Images whose gradients are computed at a time; by default what fits."
    )
    optimizer: Literal["lars", "sgd", "nesterov"] = Field("lars", description="How weights are updated.")
    base_lr: float = Field(10.0, gt=0, description="Learning rate after the warm-up.")
    end_lr: float = Field(0.0, ge=0, description="Learning rate at the end.")
    power: float = Field(2.0, gt=0, description="Of the polynomial decay.")
    warmup_epochs: float = Field(0.8, ge=0, description="Linear warm-up from 0.")
    momentum: float = Field(0.9, ge=0, lt=1, description="Of the velocity.")
    weight_decay: float = Field(1e-4, ge=0, description="L2; norms and biases do not decay.")
    trust_coeff: float = Field(0.001, gt=0, description="LARS's eta.")
    trust_eps: float = Field(0.0, ge=0, description="Added to the trust ratio's denominator.")
    trust_clip: bool = Field(False, description="Bound LARS's rate by the learning rate (LARC).")
    lr_in_momentum: bool = Field(True, description="LARS: learning rate inside the velocity (MLPerf).")
    lars_nesterov: bool = Field(False, description="LARS with Nesterov's momentum.")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="Of the loss.")
    zero_init_residual: bool = Field(False, description="Start the last norm scale of each block at 0.")
    seed: int = Field(42, ge=0, lt=2**31, description="Of weights, order and augmentation.")
    precision: Precision = Field(
        "single", description="Of matrix multiplies: double, single or bf16; all else is double."
    )
    blas: Blas = Field("auto", description="The fastest, or openblas, or none for plain Java.")
    heap: str | None = Field(None, description="JVM heap, such as 12g; by default half of the memory.")
    workers: int | None = Field(None, ge=1, description="Processes that read images; by default all cores.")
    log_every: int = Field(1, ge=1, description="Steps between lines in metrics.jsonl.")
    profile: int | None = Field(
        None, ge=1, description="Steps to profile, after ten: profile.csv and profile.png in the run folder."
    )
    num_images: int | None = Field(None, ge=1, description="Synthetic training images.")
    num_classes: int | None = Field(None, ge=2, description="Synthetic classes.")
    out: Path | None = Field(None, description="Run folder; by default runs/DATASET-MODEL-TIME.")
    resume: Path | None = Field(None, description="Run folder to continue.")

    @property
    def depth(self) -> int:
        """Layers of the network."""
        return int(self.model.removeprefix("resnet"))

    def fixed(self) -> dict[str, Any]:
        """The settings that a resumed run must agree with."""
        return {k: v for k, v in self.model_dump(mode="json").items() if k not in FREE_SETTINGS}

    def make_optimizer(self, steps_per_epoch: int) -> Optimizer:
        """The optimizer and schedule of a run whose settings are resolved."""
        return Optimizer(
            total_steps=self.epochs * steps_per_epoch,
            warmup_steps=math.floor(self.warmup_epochs * steps_per_epoch + 0.5),  # as DML rounds
            nesterov=self.lars_nesterov,
            micro_batch=self.micro_batch,
            **{name: getattr(self, name) for name in _OPTIMIZER_SETTINGS},
        )


_OPTIMIZER_SETTINGS = (
    "optimizer",
    "base_lr",
    "end_lr",
    "power",
    "momentum",
    "weight_decay",
    "trust_coeff",
    "trust_eps",
    "trust_clip",
    "lr_in_momentum",
    "label_smoothing",
)


def train(settings: TrainSettings) -> Path:
    """Trains as the settings say and gives the run folder.

    Ctrl-C and SIGTERM end it after the step under way, with a checkpoint; a second one ends it at once.
    """
    sets = [_open(settings, split) for split in ("train", "val")]
    folder = settings.resume or _new_folder(settings)
    with Engine(settings.precision, settings.heap and parse_size(settings.heap), settings.blas) as engine:
        settings = _resolve(settings, engine, sets[0], settings.depth)
        model = ResNet(
            settings.depth,
            sets[0].num_classes,
            sets[0].channels,
            settings.seed,
            settings.zero_init_residual,
            engine,
            sets[0].mean,
            sets[0].std,
            sets[0].classes,
        )
        state = State.fresh(model)
        start = (0, 0)
        if settings.resume is not None:
            start = checkpoint.restore(folder / "checkpoints", state, settings.fixed())
        else:
            (folder / "checkpoints").mkdir(parents=True)
            (folder / "config.yaml").write_text(_to_yaml(settings))
        print(_introduction(settings, folder, engine, sets, state.step))
        finished = _run(settings, folder, state, sets, start)
        if finished:
            model.save(folder / "weights.safetensors", image_size=list(sets[0].image_size))
    if finished:
        print(f"weights: {folder / 'weights.safetensors'}\ncurves:  {folder / 'curves.png'}")
    else:
        print(f"stopped at step {state.step}; continue with: python -m sysds_resnet.train --resume {folder}")
    return folder


def fit_arrays(
    model: ResNet,
    images: np.ndarray,
    labels: np.ndarray,
    validation: tuple[np.ndarray, np.ndarray] | None,
    values: dict[str, Any],
) -> pd.DataFrame:
    """`ResNet.fit`: the training loop on arrays, without a run folder."""
    settings = build(TrainSettings, values)
    classes = model.classes or [str(i) for i in range(model.network.num_classes)]
    sets = [
        None if pair is None else ArrayDataset(*pair, classes, mean=model.mean[0], std=model.std[0])
        for pair in ((images, labels), validation)
    ]
    settings = _resolve(settings, model.engine, sets[0], model.network.depth)
    events = training_loop(
        State.fresh(model),
        *sets,
        settings.make_optimizer(len(images) // settings.batch_size),
        batch_size=settings.batch_size,
        epochs=settings.epochs,
        seed=settings.seed,
        workers=settings.workers,
    )
    return pd.DataFrame([asdict(event) for event in events if isinstance(event, EpochEvent)])


def _run(
    settings: TrainSettings,
    folder: Path,
    state: State,
    sets: list[Dataset],
    start: tuple[int, int],
) -> bool:
    steps_per_epoch = len(sets[0]) // settings.batch_size
    optimizer = settings.make_optimizer(steps_per_epoch)
    record = MetricsFile(folder, state.step)
    title = f"{settings.model} on {Path(settings.dataset).name} with {settings.optimizer}"
    began, best, last = time.perf_counter(), 0.0, None
    with _signals() as stopped, _progress(optimizer.total_steps, state.step) as bar:
        profiler = None
        if settings.profile is not None:
            left = optimizer.total_steps - state.step
            profiler = StepProfiler(state, settings.profile, left, folder, bar.write)
        for event in training_loop(
            state,
            *sets,
            optimizer,
            batch_size=settings.batch_size,
            epochs=settings.epochs,
            seed=settings.seed,
            start=start,
            workers=settings.workers,
            update=profiler and profiler.update,
        ):
            if isinstance(event, StepEvent):
                bar.update()
                bar.set_postfix_str(
                    f"epoch {event.epoch} loss {event.metrics.loss:.3f} lr {event.metrics.lr:.2f}"
                )
                if event.step % settings.log_every == 0:
                    record.write("step", **_step_line(event))
                if stopped.is_set() and event.step % steps_per_epoch:
                    checkpoint.save(
                        folder / "checkpoints", state, divmod(event.step, steps_per_epoch), settings.fixed()
                    )
                    return False
            else:
                record.write("epoch", **asdict(event))
                checkpoint.save(folder / "checkpoints", state, (event.epoch, 0), settings.fixed())
                plot_curves(folder, title)
                best, last = max(best, event.val_top1), event
                bar.write(_epoch_line(event, settings.epochs))
                if stopped.is_set() and event.epoch < settings.epochs:
                    return False
    minutes = (time.perf_counter() - began) / 60
    if last is None:  # resumed after its last epoch
        print("no epoch left to train")
    else:
        top1 = 100 * last.val_top1
        print(f"validation top-1 {top1:.2f} % (best {100 * best:.2f} %) after {minutes:.1f} minutes")
    return True


def _step_line(event: StepEvent) -> dict[str, Any]:
    return {
        "epoch": event.epoch,
        "step": event.step,
        **asdict(event.metrics),
        "images_per_s": event.images / event.seconds,
        "seconds": event.seconds,
    }


def _epoch_line(event: EpochEvent, epochs: int) -> str:
    return (
        f"epoch {event.epoch:{len(str(epochs))}d}/{epochs}  train loss {event.train_loss:.4f}  "
        f"val loss {event.val_loss:.4f}  top-1 {100 * event.val_top1:6.2f} %  "
        f"top-5 {100 * event.val_top5:6.2f} %  "
        f"lr {event.lr:8.4f}  {event.images_per_s:6.1f} images/s  {event.seconds:.0f} s"
    )


def _introduction(
    settings: TrainSettings, folder: Path, engine: Engine, sets: list[Dataset], step: int
) -> str:
    height, width = sets[0].image_size
    batch = f"batch {settings.batch_size}"
    if settings.micro_batch < settings.batch_size:
        batch += f" in micro-batches of {settings.micro_batch}"
    return (
        f"run:     {folder}{f', from step {step}' if step else ''}\n"
        f"data:    {settings.dataset}, {len(sets[0])} training and {len(sets[1])} validation images of "
        f"{height} x {width}, {sets[0].num_classes} classes\n"
        f"network: {settings.model}, {settings.optimizer}, {batch}, {settings.epochs} epochs\n"
        f"engine:  {engine.describe()}"
    )


@contextmanager
def _signals() -> Iterator[threading.Event]:
    """An event that the first SIGINT or SIGTERM sets; the second acts as usual."""
    stopped = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopped  # only the main thread may set handlers
        return
    names = (signal.SIGINT, signal.SIGTERM)
    before = {name: signal.getsignal(name) for name in names}

    def handle(_number: int, _frame: object) -> None:
        stopped.set()
        for name in names:
            signal.signal(name, before[name])
        print("\nstopping after this step; once more to stop at once", file=sys.stderr)

    for name in names:
        signal.signal(name, handle)
    try:
        yield stopped
    finally:
        for name in names:
            signal.signal(name, before[name])


def _progress(total: int, initial: int) -> tqdm:
    return tqdm(total=total, initial=initial, unit="step", dynamic_ncols=True, disable=None, smoothing=0.1)


def _open(settings: TrainSettings, split: Literal["train", "val"]) -> Dataset:
    return open_dataset(
        settings.dataset,
        split,
        image_size=settings.image_size,
        seed=settings.seed,
        num_images=settings.num_images if split == "train" else None,
        num_classes=settings.num_classes,
    )


def _new_folder(settings: TrainSettings) -> Path:
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    folder = settings.out or Path("runs") / f"{Path(settings.dataset).name}-{settings.model}-{stamp}"
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(
            f"{folder}: found files there, expected a new or empty run folder; choose another --out, or "
            f"continue that run with --resume {folder}"
        )
    return folder


def _resolve(settings: TrainSettings, engine: Engine, dataset: Dataset, depth: int) -> TrainSettings:
    """Puts what depends on the machine and the data in the place of defaults."""
    if settings.batch_size > len(dataset):
        raise UserError(
            f"batch_size: found {settings.batch_size} for {len(dataset)} training images, expected at most "
            "their number; choose a smaller one"
        )
    steps = settings.epochs * (len(dataset) // settings.batch_size)
    if settings.profile is not None and settings.profile >= steps:
        raise UserError(
            f"profile: found {settings.profile} for a run of {steps} steps, expected fewer than that; choose "
            "fewer, or train for more epochs"
        )
    micro_batch = choose_micro_batch(
        engine, depth, dataset.image_size, settings.batch_size, settings.micro_batch
    )
    return settings.model_copy(update={"micro_batch": micro_batch, "image_size": dataset.image_size[0]})


def _to_yaml(settings: TrainSettings) -> str:
    values = settings.model_dump(mode="json", exclude={"config", "debug", "out", "resume"})
    return yaml.safe_dump(values, sort_keys=False)


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    return run(TrainSettings, lambda settings: _command(settings, argv), argv)


def _command(settings: TrainSettings, argv: list[str] | None) -> None:
    if settings.resume is not None:
        # the run's own settings stand behind the flags
        base = read_yaml(settings.resume / "config.yaml")
        settings = parse(TrainSettings, sys.argv[1:] if argv is None else argv, base)
    train(settings)


if __name__ == "__main__":
    sys.exit(main())
