"""Pictures of a run, from what metrics.jsonl holds and nothing else."""

from __future__ import annotations

from pathlib import Path

from sysds_resnet.metrics import read_metrics


def plot_curves(folder: Path, title: str) -> Path:
    """Draws loss, accuracy, learning rate and speed of a run into its curves.png."""
    from matplotlib.figure import Figure  # takes half a second, which a start can do without

    steps, epochs = read_metrics(folder, "step"), read_metrics(folder, "epoch")
    # there may be no line yet, and so no column, if few steps are logged
    steps = steps.reindex(columns=["step", "loss", "lr", "images_per_s"])
    figure = Figure(figsize=(10, 7), layout="constrained")
    loss, accuracy, rate, speed = figure.subplots(2, 2, sharex=True).flat
    loss.plot(
        steps["step"], steps["loss"], color="tab:blue", alpha=0.35, linewidth=1, label="train, each step"
    )
    loss.plot(epochs["step"], epochs["train_loss"], color="tab:blue", marker="o", label="train, epoch mean")
    loss.plot(epochs["step"], epochs["val_loss"], color="tab:orange", marker="o", label="validation")
    loss.set_yscale("log")
    loss.set_ylabel("cross-entropy (nats)")
    accuracy.plot(epochs["step"], 100 * epochs["val_top1"], color="tab:orange", marker="o", label="top-1")
    accuracy.plot(epochs["step"], 100 * epochs["val_top5"], color="tab:green", marker="o", label="top-5")
    accuracy.set_ylabel("validation accuracy (%)")
    rate.plot(steps["step"], steps["lr"], color="tab:purple")
    rate.set_ylabel("learning rate")
    speed.plot(steps["step"], steps["images_per_s"], color="tab:gray")
    speed.set_ylabel("training images/s")
    speed.set_ylim(bottom=0)
    for axes in (loss, accuracy):
        axes.legend()
    for axes in (rate, speed):
        axes.set_xlabel("step")
    for axes in figure.axes:
        axes.grid(alpha=0.3)
    figure.suptitle(title)
    path = folder / "curves.png"
    figure.savefig(path, dpi=110)
    return path
