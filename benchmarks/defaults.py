"""What `train --dataset DATA` with nothing else comes to on data sets of several sizes.

    python benchmarks/defaults.py --data FOLDER [--images 90 2000] [--validation 1000] [--only photos]
        [--out FILE] [-- FLAGS]

FOLDER has a train.parquet and a test.parquet with images and labels, such as CIFAR-10 as Hugging Face has it.
From its train.parquet the first images of each class are taken, as many of each; the first of test.parquet,
--validation in all, are the validation set. The first data set, photos, is one of files, as small as people's
first ones are: 72 crops of three photographs, and 30 for validation. Flags after -- are given to every run.
Each run is a process of its own, as a user starts it. The file keeps the runs of other data sets that are in
it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
from report import command_line, machine

from sysds_resnet.images.sources.photos import make_photos
from sysds_resnet.report.metrics import read_metrics

PHOTO_CLASSES, CROPS = 3, 24


def photos(folder: Path) -> None:
    """Writes a data set of a few crops of some photographs, in folders of classes."""
    with tempfile.TemporaryDirectory() as temporary:
        make_photos(Path(temporary))
        for split, crops in (("train", CROPS), ("val", None)):
            for source in sorted(Path(temporary, split).iterdir())[:PHOTO_CLASSES]:
                (folder / split / source.name).mkdir(parents=True)
                for file in sorted(source.iterdir())[:crops]:
                    shutil.copy(file, folder / split / source.name)


def subset(source: Path, images: int, validation: int, folder: Path) -> None:
    """Writes a data set of so many images for training and validation, as many of each class."""
    for name, split, count in (("train", "train", images), ("test", "val", validation)):
        table = parquet.read_table(source / f"{name}.parquet")
        labels = np.array(table["label"])
        classes = np.unique(labels)
        first = [np.flatnonzero(labels == label)[: count // len(classes)] for label in classes]
        parquet.write_table(table.take(np.sort(np.concatenate(first))), folder / f"{split}.parquet")


def run(data: Path, flags: list[str], folder: Path) -> dict[str, object]:
    """Trains with the settings that the command chooses, and gives what it came to."""
    out = folder / "run"
    command = [sys.executable, "-m", "sysds_resnet.train", "--dataset", str(data), "--out", str(out), *flags]
    began = time.perf_counter()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds = time.perf_counter() - began
    epochs = read_metrics(out, "epoch").to_dict("records")
    said = done.stdout.splitlines()
    chosen = next((i for i, line in enumerate(said) if line.startswith("chosen:")), None)
    return {
        "chosen": [line.strip() for line in said[chosen : chosen + 2]] if chosen is not None else None,
        "top1": epochs[-1]["val_top1"],
        "best_top1": max(epoch["val_top1"] for epoch in epochs),
        "val_loss": epochs[-1]["val_loss"],
        "train_loss": epochs[-1]["train_loss"],
        "minutes": seconds / 60,
        "warnings": [line for line in done.stderr.splitlines() if line.startswith("warning:")],
    }


def main() -> None:
    """Trains on each data set, and writes what it came to."""
    own = sys.argv[1:]
    flags = own[own.index("--") + 1 :] if "--" in own else []
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--images", type=int, nargs="*", default=[90, 2000])
    parser.add_argument("--validation", type=int, default=1000)
    parser.add_argument("--only", nargs="+", help="names of data sets: photos, or numbers of images")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/defaults.json"))
    arguments = parser.parse_args(own[: own.index("--")] if "--" in own else own)
    runs = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    conditions = {
        "command": command_line(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": machine(),
    }
    for name in ["photos", *map(str, arguments.images)]:
        if arguments.only and name not in arguments.only:
            continue
        with tempfile.TemporaryDirectory() as temporary:
            data = Path(temporary, "data")
            data.mkdir()
            if name == "photos":
                photos(data)
            else:
                subset(arguments.data, int(name), arguments.validation, data)
            found = run(data, flags, Path(temporary))
        print(name, json.dumps(found), flush=True)
        runs[name] = {**conditions, **found}
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(runs, indent=1) + "\n")


if __name__ == "__main__":
    main()
