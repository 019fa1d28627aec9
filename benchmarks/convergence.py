"""Where the same recipe ends here and in PyTorch: LARS and SGD, digits and photographs, several seeds.

    python benchmarks/convergence.py [--datasets digits photos] [--optimizers lars sgd] [--seeds 41 42 43]
        [--control-seeds 41 42 43] [--epochs N] [--heap 6g] [--out FILE.json]
    python benchmarks/convergence.py --markdown FILE.json [FILE.json ...]

A cell is a data set, an optimizer and a seed. `python -m sysds_resnet.train` runs first, in single precision.
PyTorch then starts from the same weights and sees the same batches in the same order at the same learning
rates, in FP32; and, for all seeds or for some, once more in channels_last, which sums in another order: what
rounding alone does to where a training ends. Each side evaluates itself on all validation images after each
epoch; the last epoch counts, whose learning rate is next to 0. Cells that the file holds already, of the same
commit and recipe, with or without control, are not run again. Cells may be spread over processes with a file
each, which --markdown puts together. PyTorch is needed, which is among the packages that the tests use.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from convergence_pytorch import FIRST, Start, train_pytorch
from PIL import Image
from report import origin

from sysds_resnet import ResNet
from sysds_resnet.engine import Engine
from sysds_resnet.engine.jvm.memory import parse_size
from sysds_resnet.images import Dataset, open_dataset
from sysds_resnet.images.sources.photos import NUM_CROPS, make_photos
from sysds_resnet.report.metrics import read_metrics
from sysds_resnet.settings.command_line import build, read_yaml
from sysds_resnet.training.settings import TrainSettings
from sysds_resnet.training.start import open_set
from sysds_resnet.training.state import State

OURS, PYTORCH, CONTROL = "this project", "PyTorch", "PyTorch, channels_last"
BAR = 0.005  # of the mean validation top-1
VAL_CROPS = 100  # of each photograph: one image of all is 0.08 points
VAL_DIGITS = 5  # of each digit for validation: one image of all is 0.06 points
LEAST_SIDE = 26 / 32  # of a digit's, in such a crop
SAME_START = 1e-4  # of the first loss, relative: FP32 rounding is below 1e-5

# SGD's rates are 0.1 for a batch of 256, in proportion to the batch: Goyal et al. 2017,
# https://arxiv.org/abs/1706.02677, section 2.1.
DATASETS = {
    "digits": {
        "model": "resnet18",
        "image-size": 32,
        "batch-size": 64,
        "epochs": 10,
        "warmup-epochs": 2,
        "crop-area": 0.6,
        "flip": 0,
    },
    "photos": {"model": "resnet18", "image-size": 64, "batch-size": 32, "epochs": 12, "warmup-epochs": 2},
}
OPTIMIZERS = {
    "digits": {"lars": {"base-lr": 5.0}, "sgd": {"base-lr": 0.025}},
    "photos": {"lars": {"base-lr": 5.0}, "sgd": {"base-lr": 0.0125}},
}


def write_digits(folder: Path) -> None:
    """The data set digits as files, for random crops, and for validation such crops of its validation images.

    They are more images than the 360 of the data set, and differ less from those that are trained on, so
    that rounding alone moves where PyTorch ends by less (docs/results.md).
    """
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        digits = open_dataset("digits", split)
        for i, (image, label) in enumerate(zip(*digits.arrays(), strict=True)):
            place = folder / split / digits.classes[label]
            place.mkdir(parents=True, exist_ok=True)
            picture = Image.fromarray(image)
            if split == "train":
                picture.save(place / f"{i}.png")
                continue
            for k in range(VAL_DIGITS):
                side = rng.uniform(LEAST_SIDE, 1) * picture.width
                left, upper = rng.uniform(0, picture.width - side, 2)
                box = (left, upper, left + side, upper + side)
                picture.resize(picture.size, Image.Resampling.BILINEAR, box).save(place / f"{i}_{k}.png")


def write_photos(folder: Path) -> None:
    """The training crops of the data set photos, and for validation more of the same parts.

    Validation on the other parts, as in photos, would hide what is measured: there, rounding alone moves
    where PyTorch ends by several times the bar (docs/results.md).
    """
    first = NUM_CROPS["train"]
    with patch.dict(NUM_CROPS, train=first + VAL_CROPS, val=0):
        make_photos(folder)
    for path in list((folder / "train").glob("*/*.JPEG")):
        if int(path.stem.split("_")[1]) >= first:
            path.rename(folder / "val" / path.parent.name / path.name)
    for path in folder.glob("*_list.txt"):  # folders are the layout now
        path.unlink()


def train_ours(options: list[str]) -> tuple[dict[str, Any], TrainSettings]:
    """The run by our command, and its complete settings."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        command = [sys.executable, "-m", "sysds_resnet.train", *options, "--out", str(out)]
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        epochs, steps = read_metrics(out, "epoch"), read_metrics(out, "step")
        settings = build(TrainSettings, read_yaml(out / "config.yaml"))
    curves = epochs[["train_loss", "val_loss", "val_top1"]].to_dict("list")
    return {**curves, "first_losses": steps["loss"].tolist()[:FIRST]}, settings


def make_start(settings: TrainSettings, train: Dataset) -> Start:
    """What our run began with, made anew."""
    with Engine(heap=settings.heap and parse_size(settings.heap)) as engine:
        model = ResNet(settings.depth, train.num_classes, train.channels, settings.seed, engine=engine)
        state = State.fresh(model)
        orders = [state.order(len(train), settings.seed, epoch) for epoch in range(settings.epochs)]
        rates = settings.make_schedule(len(train) // settings.batch_size).rates(engine)
        return Start(model.state_dict(), rates, orders)


def run_cell(recipe: list[str], dataset: str, heap: str, control: bool) -> dict[str, dict[str, Any]]:
    """The sides of a cell, one after the other."""
    sides: dict[str, dict[str, Any]] = {}
    began = time.perf_counter()
    sides[OURS], settings = train_ours([*recipe, "--dataset", dataset, "--heap", heap])
    sides[OURS]["minutes"] = (time.perf_counter() - began) / 60
    sets = [open_set(settings, split) for split in ("train", "val")]
    start = make_start(settings, sets[0])
    layouts = {PYTORCH: torch.contiguous_format} | ({CONTROL: torch.channels_last} if control else {})
    for side, layout in layouts.items():
        began = time.perf_counter()
        sides[side] = train_pytorch(start, settings, sets, layout)
        sides[side]["minutes"] = (time.perf_counter() - began) / 60
        found, expected = (sides[name]["first_losses"][0] for name in (side, OURS))
        if abs(found - expected) > SAME_START * expected:
            raise SystemExit(f"{side}: found a first loss of {found}, expected {expected}, as on our side")
    return sides


def compare(cells: list[dict[str, Any]], side: str) -> dict[str, Any] | None:
    """Last top-1 of a side in each cell, their mean, and the mean difference from PyTorch's, seed by seed.

    Of cells that have this side only; None if no cell has it.
    """
    cells = [cell for cell in cells if side in cell["sides"]]
    if not cells:
        return None
    top1, peers = ([cell["sides"][name]["val_top1"][-1] for cell in cells] for name in (side, PYTORCH))
    differences = [found - expected for found, expected in zip(top1, peers, strict=True)]
    return {
        "val_top1": top1,
        "mean": statistics.mean(top1),
        "difference": statistics.mean(differences),
        "standard_error": statistics.stdev(differences) / len(cells) ** 0.5 if len(cells) > 1 else None,
    }


def summarize(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each data set and optimizer."""
    rows = []
    for dataset, optimizer in dict.fromkeys((run["dataset"], run["optimizer"]) for run in runs):
        cells = [run for run in runs if (run["dataset"], run["optimizer"]) == (dataset, optimizer)]
        row = {"dataset": dataset, "optimizer": optimizer, "seeds": [cell["seed"] for cell in cells]}
        row |= {"n": len(cells), **{side: compare(cells, side) for side in (OURS, PYTORCH, CONTROL)}}
        rows.append(row | {"within_bar": abs(row[OURS]["difference"]) <= BAR})
    return rows


def markdown(rows: list[dict[str, Any]]) -> str:
    """The rows as a table, in per cent and points."""

    def top1(side: dict[str, Any] | None) -> str:
        if side is None:
            return "not run"
        return f"{100 * side['mean']:.2f} ({', '.join(f'{100 * value:.2f}' for value in side['val_top1'])})"

    def difference(side: dict[str, Any] | None) -> str:
        if side is None:
            return ""
        error = "" if side["standard_error"] is None else f" ± {100 * side['standard_error']:.2f}"
        return f"{100 * side['difference']:+.2f}{error}"

    lines = [
        f"| data set, optimizer | {OURS} | {PYTORCH} | difference | within {100 * BAR:g} | {CONTROL} | its "
        "difference |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        ours, pytorch, control = (row[side] for side in (OURS, PYTORCH, CONTROL))
        lines.append(
            f"| {row['dataset']}, {row['optimizer']} | {top1(ours)} | {top1(pytorch)} | {difference(ours)} | "
            f"{'yes' if row['within_bar'] else 'no'} | {top1(control)} | {difference(control)} |"
        )
    return "\n".join(lines)


def begin(out: Path | None) -> dict[str, Any]:
    """The file's content so far, if there is one of this commit and machine."""
    result = {
        **origin(),
        "runs": [],
    }
    if out and out.exists():
        before = json.loads(out.read_text())
        if before["machine"] != result["machine"]:
            raise SystemExit(
                f"{out}: found another commit or machine's results, expected this one's; move it"
            )
        result["runs"] = before["runs"]
    return result


def run_all(args: argparse.Namespace, sources: dict[str, Path]) -> dict[str, Any]:
    """Runs the cells that are missing, one after the other, and writes the file after each."""
    result = begin(args.out)
    for seed, dataset, optimizer in product(args.seeds, args.datasets, args.optimizers):
        options = DATASETS[dataset] | {"optimizer": optimizer} | OPTIMIZERS[dataset][optimizer]
        # one micro-batch, or the norms' statistics are not the batch's, as PyTorch's are
        options |= {"micro-batch": options["batch-size"], "seed": seed}
        if args.epochs:
            warmup = min(args.epochs, options["warmup-epochs"])
            options |= {"epochs": args.epochs, "warmup-epochs": warmup}
        recipe = [text for name, value in options.items() for text in (f"--{name}", str(value))]
        cell = {"dataset": dataset, "optimizer": optimizer, "seed": seed, "recipe": shlex.join(recipe)}
        if any(run.items() >= cell.items() for run in result["runs"]):
            print(f"{dataset}, {optimizer}, seed {seed}: in the file already", flush=True)
            continue
        sides = run_cell(recipe, str(sources[dataset]), args.heap, seed in args.control_seeds)
        result["runs"].append(cell | {"sides": sides})
        result["summary"] = summarize(result["runs"])
        if args.out:
            args.out.write_text(json.dumps(result, indent=1) + "\n")
        ends = ", ".join(f"{name} {100 * side['val_top1'][-1]:.2f} %" for name, side in sides.items())
        print(f"{dataset}, {optimizer}, seed {seed}: {ends}", flush=True)
    return result


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--datasets", nargs="+", choices=DATASETS, default=list(DATASETS))
    parser.add_argument("--optimizers", nargs="+", choices=["lars", "sgd"], default=["lars", "sgd"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[41, 42, 43])
    parser.add_argument("--control-seeds", nargs="*", type=int, default=[41, 42, 43])
    parser.add_argument("--epochs", type=int, help="in the place of the recipe's, for a trial")
    parser.add_argument("--heap", default="6g")
    parser.add_argument("--out", type=Path)
    parser.add_argument(
        "--markdown", nargs="+", type=Path, help="print the table of these files and do nothing else"
    )
    args = parser.parse_args()
    if args.markdown:
        runs = [run for path in args.markdown for run in json.loads(path.read_text())["runs"]]
        result = {"runs": sorted(runs, key=lambda run: run["seed"])}
    else:
        with tempfile.TemporaryDirectory() as folder:
            sources = {name: Path(folder) / name for name in DATASETS}
            write_digits(sources["digits"])
            write_photos(sources["photos"])
            result = run_all(args, sources)
    print(markdown(summarize(result["runs"])))


if __name__ == "__main__":
    main()
