"""The command that checks that every image of a data set can be read: python -m sysds_resnet.verify PATH."""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import get_args

import numpy as np
from tqdm import tqdm

from sysds_resnet.batches.order import sequential_order
from sysds_resnet.batches.readers import Readers, default_workers
from sysds_resnet.batches.stream import BatchStream
from sysds_resnet.errors import NoSuchSplit, Undivided, UserError, one_line, printable
from sysds_resnet.images import Dataset, EncodedDataset, Layout
from sysds_resnet.images.sources.files import Split
from sysds_resnet.images.sources.layouts import open_source
from sysds_resnet.images.sources.manifest import MANIFEST, FileRecord, Manifest
from sysds_resnet.images.sources.photos import photos_folder
from sysds_resnet.settings.base import Settings
from sysds_resnet.settings.command_line import run
from sysds_resnet.settings.fields import setting
from sysds_resnet.system.csv_cells import to_cell
from sysds_resnet.system.files import check_place, user_path, write_whole

BATCH = 256
SMALL = 8  # pixels along a side, since images are decoded only to be checked


class VerifySettings(Settings):
    """Reads every image of a data set and reports those that cannot be read; ends with 1 if there are any."""

    path: str = setting(
        positional=True,
        group="input",
        description="The data set: photos, or the path of images in one of the layouts.",
    )
    layout: Layout | None = setting(
        None,
        group="input",
        description="The layout of a data set at a path; by default the first of these that there are signs "
        "of.",
    )
    out: Path = setting(
        Path("verify.csv"), group="output", description="The CSV file for what cannot be read, if anything."
    )
    workers: int | None = setting(
        None,
        group="reading images",
        ge=1,
        description="The number of processes that read images; by default one for each core, at most 16.",
    )


def command(settings: VerifySettings) -> int:
    """Verifies the data set, prints a report, and gives 1 if anything is wrong."""
    check_place(settings.out)
    root = photos_folder() if settings.path == "photos" else user_path(settings.path)
    bad: list[tuple[str, str, str, str]] = []
    if os.path.isfile(root / MANIFEST):  # a path that is too long for a file is reported when it is opened
        bad += [("", name, "", reason) for name, reason in damaged_files(root, settings.workers)]
    sets = {} if bad else _open(root, settings.layout)
    notes = list(dict.fromkeys(note for dataset in sets.values() for note in getattr(dataset, "notes", [])))
    with Readers(list(sets.values()), settings.workers) as readers:
        for split, dataset in sets.items():
            found = unreadable(dataset, readers, split)
            bad += [(split, *row) for row in found]
            print(_report(split, dataset, len(found)))
    for note in notes:
        print(f"note: {printable(note)}")
    if not bad:
        read = "all images can be read"
        if notes:
            images = sum(map(len, sets.values()))
            read = f"{images} images can be read; the notes above say what is not among them"
        print(printable(f"{root}: {read}"))
        return 0
    _write(settings.out, bad)
    print(printable(f"{root}: {len(bad)} images or files cannot be used, listed in {settings.out}"))
    return 1


def _write(out: Path, bad: list[tuple[str, str, str, str]]) -> None:
    import pandas as pd  # not at the top: commands start sooner without it

    cells = [[to_cell(text) for text in row] for row in bad]
    text = pd.DataFrame(cells, columns=["split", "name", "class", "reason"]).to_csv(index=False)
    try:
        write_whole({out: lambda path: path.write_text(text, encoding="utf-8")})
    except OSError as error:
        raise UserError(
            f"{out}: found {one_line(error)}, expected a place for the list of {len(bad)} images or files "
            f"that cannot be used, the first: {bad[0][-1]}; choose another --out"
        ) from error


def _open(root: Path, layout: Layout | None) -> dict[str, Dataset]:
    """Opens the splits that are there, or all images of a data set that is not divided, by their names."""
    sets: dict[str, Dataset] = {}
    errors: list[NoSuchSplit] = []
    for split in get_args(Split):
        try:
            sets[split] = EncodedDataset(open_source(root, split, layout), image_size=SMALL)
        except NoSuchSplit as error:
            errors.append(error)
    if not sets:
        raise errors[0]
    if any(isinstance(error, Undivided) for error in errors):
        [dataset] = sets.values()
        return {"images": dataset}
    for error in errors:
        print(printable(f"left out: {error}"))
    return sets


def unreadable(dataset: Dataset, readers: Readers, title: str) -> list[tuple[str, str, str]]:
    """Gives the name, the class and the reason of each image that cannot be read."""
    bad: list[tuple[str, str, str]] = []

    def note(_dataset: Dataset, index: int, reason: str) -> None:
        bad.append((dataset.name(index), dataset.classes[dataset.labels[index]], reason))

    n = len(dataset)
    with (
        BatchStream(
            dataset, sequential_order(n), BATCH, readers, drop_last=False, epochs=1, on_error=note
        ) as stream,
        tqdm(total=n, unit="image", desc=title, disable=None) as bar,
    ):
        for batch in stream:
            bar.update(min((batch.step + 1) * BATCH, n) - bar.n)
            bar.set_postfix_str(f"{len(bad)} bad")
    return bad


def damaged_files(root: Path, workers: int | None) -> list[tuple[str, str]]:
    """Gives the path and the reason of each file of a prepared data set that is not as its manifest says."""
    manifest = Manifest.read(root / MANIFEST)

    def check(name: str) -> str | None:
        try:
            if (found := FileRecord.of(root / name)) != manifest.files[name]:
                return f"found {found}, expected {manifest.files[name]} as when it was prepared"
        except OSError as error:
            return error.strerror
        return None

    names = list(manifest.files)
    with (
        ThreadPoolExecutor(workers or default_workers()) as pool,
        tqdm(total=len(names), unit="file", desc="checksums", disable=None) as bar,
    ):
        reasons = []
        for reason in pool.map(check, names):
            reasons.append(reason)
            bar.update()
    return [(os.fspath(root / name), reason) for name, reason in zip(names, reasons, strict=True) if reason]


def _report(split: str, dataset: Dataset, bad: int) -> str:
    counts = np.bincount(dataset.labels, minlength=dataset.num_classes)
    return (
        f"{split}: {len(dataset)} images, {bad} bad, {dataset.num_classes} classes of {counts.min()} to "
        f"{counts.max()} images"
    )


def main(argv: list[str] | None = None) -> int:
    """Runs the command line, and gives the exit code."""
    return run(VerifySettings, command, argv)


if __name__ == "__main__":
    sys.exit(main())
