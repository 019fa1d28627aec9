"""Trains a network: python -m sysds_resnet.train."""

from __future__ import annotations

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
from tqdm import tqdm

from sysds_resnet import checkpoint
from sysds_resnet.data_settings import BadImages
from sysds_resnet.engine import Engine
from sysds_resnet.engine.memory import parse_size
from sysds_resnet.errors import UserError
from sysds_resnet.images import ArrayDataset, Dataset, open_dataset
from sysds_resnet.images.files import CLASSES_FILE, classes_text
from sysds_resnet.loop import EpochEvent, StepEvent, choose_micro_batch, training_loop
from sysds_resnet.metrics import MetricsFile
from sysds_resnet.model import ResNet
from sysds_resnet.plots import plot_curves
from sysds_resnet.profiling import StepProfiler
from sysds_resnet.recipes import describe_all
from sysds_resnet.settings import build, find_flag, parse, read_yaml, run
from sysds_resnet.state import State
from sysds_resnet.train_settings import TrainSettings


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
            (folder / CLASSES_FILE).write_text(classes_text(sets[0].classes))
        print(_introduction(settings, folder, engine, sets, state.step))
        finished = _run(settings, folder, state, sets, start)
        if finished:
            sizes = {"image_size": list(sets[1].image_size), "resize_size": settings.resize_size}
            model.save(folder / "weights.safetensors", **{k: v for k, v in sizes.items() if v is not None})
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
        mixing=settings.mixing(),
        workers=settings.workers,
        prefetch=settings.prefetch,
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
    bad = BadImages(settings, folder)
    began, best, last = time.perf_counter(), 0.0, None
    with _signals() as stopped, _progress(optimizer.schedule.total_steps, state.step) as bar:
        profiler = None
        if settings.profile is not None:
            left = optimizer.schedule.total_steps - state.step
            profiler = StepProfiler(state, settings.profile, left, folder, bar.write)
        for event in training_loop(
            state,
            *sets,
            optimizer,
            batch_size=settings.batch_size,
            epochs=settings.epochs,
            seed=settings.seed,
            start=start,
            mixing=settings.mixing(),
            workers=settings.workers,
            prefetch=settings.prefetch,
            on_error=bad,
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
    if len(bad):
        print(f"{len(bad)} images cannot be read and were left out: {bad.path}")
    return True


def _step_line(event: StepEvent) -> dict[str, Any]:
    return {
        "epoch": event.epoch,
        "step": event.step,
        **asdict(event.metrics),
        "images_per_s": event.images / event.seconds,
        "seconds": event.seconds,
        "data_wait_s": event.data_wait,
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
    training = split == "train"
    return open_dataset(
        settings.dataset,
        split,
        layout=settings.layout,
        image_size=settings.image_size if training else settings.eval_size or settings.image_size,
        resize_size=settings.resize_size,
        augmentation=settings.augmentation(),
        seed=settings.seed,
        num_images=settings.num_images if training else None,
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
    if find_flag("recipe", sys.argv[1:] if argv is None else argv) == "list":
        print(describe_all())
        return 0
    return run(TrainSettings, lambda settings: _command(settings, argv), argv)


def _command(settings: TrainSettings, argv: list[str] | None) -> None:
    if settings.resume is not None:
        # the run's own settings stand behind the flags
        base = read_yaml(settings.resume / "config.yaml")
        settings = parse(TrainSettings, sys.argv[1:] if argv is None else argv, base)
    train(settings)


if __name__ == "__main__":
    sys.exit(main())
