"""The writing of a prepared data set: what is there already, whether there is room, shards, then matrices."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from tqdm import tqdm

from sysds_resnet.batches.bad_images import BadImages
from sysds_resnet.classes.file import CLASSES_FILE, classes_text
from sysds_resnet.engine.spark.session import spark_session
from sysds_resnet.errors import NoSuchSplit, UserError, one_line, printable
from sysds_resnet.images import Dataset, open_dataset
from sysds_resnet.images.identity import digest
from sysds_resnet.images.settings import print_notes
from sysds_resnet.images.sources.files import Split
from sysds_resnet.images.sources.shards import MANIFEST, PROGRESS, Manifest
from sysds_resnet.preparing.matrices import (
    Blocks,
    blocks_file,
    matrix_file,
    write_blocks,
    write_matrices,
)
from sysds_resnet.preparing.settings import PrepareSettings
from sysds_resnet.preparing.shards import save_manifest, shard_writer, write_shards
from sysds_resnet.preparing.spark import spark_blocks
from sysds_resnet.system.console import warn
from sysds_resnet.system.files import write_whole
from sysds_resnet.system.folder_lock import LOCK_FILE, FolderLock

DEFAULT_SIZE = 256


COMPRESSED = 2  # rough number of bytes of a photograph's value in a matrix file; in memory there are 8


def prepare(settings: PrepareSettings) -> Manifest:
    """Writes what is missing of the data set that the settings describe, and gives its manifest.

    Raises:
        UserError: If it cannot be read, the disk is too small, or the folder holds something else.
    """
    settings.check_cluster()
    splits: tuple[Split, ...] = ("train", "val") if settings.splits == "both" else (settings.splits,)
    try:
        sets = {split: _open(settings, split) for split in splits}
    except NoSuchSplit as error:
        raise UserError(f"{error}, or prepare what is there with --splits") from error
    try:
        made = [folder for folder in (settings.out, *settings.out.parents) if not folder.exists()]
        settings.out.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{settings.out}: cannot be made ({one_line(error)}), expected a folder for the data set: choose "
            "another --out"
        ) from error
    try:
        with FolderLock(settings.out, "prepare", warn):
            return _write(settings, splits, sets)
    finally:
        with suppress(OSError):  # a folder is not empty if something was written
            for folder in made:
                folder.rmdir()


def _write(settings: PrepareSettings, splits: tuple[Split, ...], sets: dict[Split, Dataset]) -> Manifest:
    """Writes what is missing into a folder that this process holds."""
    manifest = _begin(settings, sets)
    print_notes(*sets.values())
    _check_room(settings, sets, manifest)
    for left in settings.out.rglob(".*.tmp"):  # left by a run that was killed
        left.unlink()
    if not (settings.out / MANIFEST).exists():
        save_manifest(settings.out / PROGRESS, manifest)  # first of all, to tell this folder from others
        bad = BadImages(settings, settings.out)
        with shard_writer(settings, list(sets.values()), bad) as shards:
            for split, dataset in sets.items():
                write_shards(settings, split, dataset, shards, manifest)
        names = classes_text(manifest.classes)
        write_whole({settings.out / CLASSES_FILE: lambda temporary: temporary.write_text(names)})
        save_manifest(settings.out / MANIFEST, manifest)
        if len(bad):
            print(printable(f"{len(bad)} images cannot be read and were left out: {bad.path}"))
    (settings.out / PROGRESS).unlink(missing_ok=True)
    if settings.matrices and any(matrix_file(s) not in manifest.files for s in splits):
        write_matrices(settings.out, splits, manifest)
        save_manifest(settings.out / MANIFEST, manifest)
    if settings.blocks and any(blocks_file(s, settings.blocks) not in manifest.files for s in splits):
        with _blocks(settings) as blocks:
            write_blocks(settings.out, splits, manifest, settings.blocks, blocks)
        save_manifest(settings.out / MANIFEST, manifest)
    return manifest


@contextmanager
def _blocks(settings: PrepareSettings) -> Iterator[Blocks | None]:
    """Gives what writes blocks of images: a cluster, or None for this process."""
    if settings.engine == "spark":
        cluster = settings.cluster()
        with spark_session(cluster, {}) as spark:
            yield partial(spark_blocks, spark, cluster)
    else:
        yield None


def _open(settings: PrepareSettings, split: Split) -> Dataset:
    own_size = settings.dataset in ("digits", "synthetic")
    size = settings.image_size or (None if own_size else DEFAULT_SIZE)
    return open_dataset(
        settings.located(settings.engine == "spark"),
        split,
        **settings.where(),
        image_size=size,
        resize_size=None if own_size else size,
        augmentation=None,
    )


def _begin(settings: PrepareSettings, sets: dict[Split, Dataset]) -> Manifest:
    """Gives the manifest to go on with: that of a run of the same command, or a new one."""
    first = next(iter(sets.values()))
    options = {
        "dataset": settings.dataset,
        "image_size": list(first.image_size),
        "shard_images": settings.shard_images,
        "images": {split: len(dataset) for split, dataset in sets.items()},
        **{f"{split} samples": digest(dataset) for split, dataset in sets.items()},
    }
    for name in (MANIFEST, PROGRESS):
        if (settings.out / name).exists():
            manifest = Manifest.read(settings.out / name)
            for key, value in options.items():
                if manifest.options.get(key) != value:
                    raise UserError(
                        f"{settings.out}: found a data set with {key} {manifest.options.get(key)}, expected "
                        f"{value}: prepare it as before, or choose another --out"
                    )
            return manifest
    if settings.out.exists() and not (settings.out.is_dir() and all(map(_is_ours, settings.out.iterdir()))):
        raise UserError(
            f"{settings.out}: found files there, expected a new or empty folder: choose another --out"
        )
    return Manifest(
        options,
        list(first.image_size),
        first.classes,
        first.mean.tolist(),
        first.std.tolist(),
        {split: [] for split in sets},
        {},
    )


def _is_ours(path: Path) -> bool:
    """Tells whether a file is what a run leaves that is killed before it has written anything."""
    return path.name == LOCK_FILE or path.match(f".{PROGRESS}.*.tmp")


def _check_room(settings: PrepareSettings, sets: dict[Split, Dataset], manifest: Manifest) -> None:
    """Prints how large the result will be, and raises a UserError if there is no room for it."""
    height, width = manifest.image_size
    images = sum(len(dataset) for dataset in sets.values())
    values = images * height * width * 3
    parts = ", ".join(f"{len(dataset)} {split}" for split, dataset in sets.items())
    print(f"{parts} images of {height} x {width}, {len(manifest.classes)} classes")
    print(f"shards:   {_size(values)}")
    forms = bool(settings.matrices) + bool(settings.blocks)
    if forms:
        print(
            f"matrices: about {_size(values * COMPRESSED * forms)} on the disk, {_size(values * 8)} in the "
            "memory of a program that reads them"
        )
    missing = values * (1 + COMPRESSED * forms)
    there = (path for path in settings.out.rglob("*") if path.is_file() and path.name != LOCK_FILE)
    missing -= sum(path.stat().st_size for path in there)
    place = next(path for path in (settings.out.resolve(), *settings.out.resolve().parents) if path.exists())
    free = shutil.disk_usage(place).free
    wanted = [matrix_file(split) for split in sets] if settings.matrices else []
    wanted += [blocks_file(split, settings.blocks) for split in sets] if settings.blocks else []
    complete = (settings.out / MANIFEST).exists() and all(name in manifest.files for name in wanted)
    if missing > free and not complete:
        raise UserError(
            f"{settings.out}: found {_size(free)} free, expected {_size(missing)}: make room, choose another "
            "--out, or lower --image-size"
        )


def _size(number: float) -> str:
    return tqdm.format_sizeof(number, "B")
