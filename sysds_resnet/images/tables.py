"""Tables of paths and labels."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd
import pyarrow as pa

from sysds_resnet.errors import NoSuchSplit, UserError, one_line
from sysds_resnet.images.files import LABEL_COLUMNS, PATH_COLUMNS, SPLIT_NAMES, Split, number_labels
from sysds_resnet.images.parquet import read_schema
from sysds_resnet.images.sources import FileSource

_ENDINGS = (".csv", ".tsv", ".parquet")


def open_table(root: Path, split: Split) -> FileSource:
    """Open train.csv and val.csv in a folder, or a table with a column "split"; paths start there."""
    folder = root if root.is_dir() else root.parent
    if root.is_dir():
        found = {name: find_table(root, name) for name in ("train", "val")}
        tables = {name: _read_table(path) for name, path in found.items() if path is not None}
    else:
        tables = {name: part for name, part in _by_split(root).items() if len(part)}
    if split not in tables:
        raise NoSuchSplit(
            f"data set {root}: found no images for {split}, expected a {split}.csv, or {split} in a column "
            "'split': add them"
        )
    own, classes = number_labels(folder, {name: table["label"] for name, table in tables.items()}, split)
    return FileSource([os.path.join(folder, name) for name in tables[split]["path"]], own, classes, folder)


def find_table(root: Path, split: Split) -> Path | None:
    """The table of paths and labels of a split in a folder; or the path itself, if it is one."""
    if root.is_file():
        return root if root.suffix in _ENDINGS else None
    for name in SPLIT_NAMES[split]:
        for ending in _ENDINGS:
            path = root / f"{name}{ending}"
            if path.is_file() and (ending != ".parquet" or set(PATH_COLUMNS) & set(read_schema(path).names)):
                return path
    return None


def _by_split(path: Path) -> dict[str, pd.DataFrame]:
    table = _read_table(path)
    if "split" not in table:
        raise UserError(
            f"{path}: found columns {_names(table)}, expected one called 'split' with train and val: add it, "
            "or give a folder with train.csv and val.csv"
        )
    kinds = table["split"].astype(str)
    return {name: table[kinds.isin(SPLIT_NAMES[name])] for name in ("train", "val")}


def _read_table(path: Path) -> pd.DataFrame:
    """A table with columns path and label, whatever they are called in the file."""
    try:
        if path.suffix == ".parquet":
            table = pd.read_parquet(path)
        else:
            table = pd.read_csv(path, sep="\t" if path.suffix == ".tsv" else ",")
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UserError(
            f"{path}: found no readable table ({one_line(error)}), expected .csv, .tsv or .parquet: repair it"
        ) from error
    for wanted, names in (("path", PATH_COLUMNS), ("label", LABEL_COLUMNS)):
        present = [name for name in names if name in table]
        if not present:
            raise UserError(
                f"{path}: found columns {_names(table)}, expected one called '{wanted}': rename it"
            )
        table = table.rename(columns={present[0]: wanted})
    missing = table[["path", "label"]].isna().any(axis=1).to_numpy()
    if missing.any() or not len(table):
        row = f"row {int(missing.argmax()) + 1} without path or label" if len(table) else "no rows"
        raise UserError(f"{path}: found {row}, expected a path and a label in each row: fill the table")
    return table


def _names(table: pd.DataFrame) -> str:
    return ", ".join(map(str, table.columns))
