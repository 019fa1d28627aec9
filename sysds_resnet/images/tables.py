"""Tables of paths and labels."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from sysds_resnet.errors import NoSuchSplit, UserError, one_line
from sysds_resnet.files import read_text
from sysds_resnet.images.files import (
    LABEL_COLUMNS,
    PATH_COLUMNS,
    SPLIT_NAMES,
    TEST_NAMES,
    Split,
    entries,
    split_named,
    test_taken,
    test_unused,
)
from sysds_resnet.images.labels import LabelColumn, assign_labels
from sysds_resnet.images.lists import common_folders, note_on_repeats
from sysds_resnet.images.parquet import class_names, read_schema
from sysds_resnet.images.sources import FileSource

_ENDINGS = (".csv", ".tsv", ".parquet")
_NAMES = {"path": PATH_COLUMNS, "label": LABEL_COLUMNS, "split": ("split",)}


@dataclass(frozen=True)
class _Table:
    """Paths and labels.

    Attributes:
        file: in which they stand.
        rows: columns path, label and, where there is one, split; its index counts the file's rows from 1.
        names: of numbered classes, where the file tells.
    """

    file: Path
    rows: pd.DataFrame
    names: list[str] | None

    def labels(self) -> LabelColumn:
        index = self.rows.index
        return LabelColumn(self.rows["label"].array, lambda i: f"{self.file}, row {index[i]}", self.names)


def open_table(root: Path, split: Split) -> FileSource:
    """Open train.csv and val.csv in a folder, or a table with a column "split"; paths start there."""
    folder = root if root.is_dir() else root.parent
    if root.is_dir():
        found = {name: find_table(root, name) for name in ("train", "val")}
        tables = {name: _read_table(path) for name, path in found.items() if path is not None}
        notes = _notes_on_test(root, found["val"])
    else:
        tables, notes = _by_split(_read_table(root))
    if split not in tables:
        raise NoSuchSplit(
            f"data set {root}: found no images for {split}, expected a {split}.csv, or {split} in a column "
            "'split': add them"
        )
    columns = {name: [table.labels()] for name, table in tables.items()}
    labels = {name: assign_labels(folder, columns, name) for name in tables}
    listed = {name: (table.rows["path"].tolist(), labels[name].labels) for name, table in tables.items()}
    common_folders(root, listed)  # raises an error where splits contradict each other
    own = labels[split]
    notes += own.notes + note_on_repeats(root, listed[split][0], own.labels)
    paths = [os.path.join(folder, name) for name in listed[split][0]]
    return FileSource(paths, own.labels, own.classes, folder, notes)


def find_table(root: Path, split: Split) -> Path | None:
    """The table of paths and labels of a split in a folder; or the path itself, if it is one.

    The test split's is taken for validation where there is no other.
    """
    if root.is_file():
        return root if root.name.lower().endswith(_ENDINGS) else None
    names = SPLIT_NAMES[split] + (TEST_NAMES if split == "val" else ())
    there = {name.lower(): root / name for name in reversed(entries(root))}
    for path in (there.get(f"{name}{ending}") for name in names for ending in _ENDINGS):
        if path is not None and (path.suffix.lower() != ".parquet" or _find(read_schema(path).names, "path")):
            return path
    return None


def _notes_on_test(root: Path, val: Path | None) -> list[str]:
    if val is None:
        return []
    if split_named(val.stem) == "test":
        return test_taken(root, val.name)
    test = [f"{name}{ending}" for name in TEST_NAMES for ending in _ENDINGS]
    return [note for name in entries(root) if name.lower() in test for note in test_unused(root, name)]


def _by_split(table: _Table) -> tuple[dict[Split, _Table], list[str]]:
    """The rows of each split that is there, and notes on rows that are left out."""
    if "split" not in table.rows:
        raise UserError(
            f"{table.file}: found columns path and label, expected one called 'split' with train and val "
            "too: add it, or give a folder with train.csv and val.csv"
        )
    told = table.rows["split"].fillna("").astype(str)
    kinds = told.map({name: split_named(name) or "" for name in told.unique()})
    counts = kinds.value_counts()
    notes = []
    test = f"{counts.get('test', 0)} rows"
    if "test" in counts and "val" in counts:
        notes = test_unused(table.file, test)
    elif "test" in counts:
        kinds = kinds.replace("test", "val")
        notes = test_taken(table.file, test)
    if "" in counts:
        names = sorted({name or "nothing" for name in told[kinds == ""]})
        notes.append(
            f"data set {table.file}: left out {counts['']} rows whose split is neither train, val nor test "
            f"but {', '.join(names[:3])}"
        )
    parts = {name: table.rows[kinds == name] for name in ("train", "val")}
    return {name: _Table(table.file, rows, table.names) for name, rows in parts.items() if len(rows)}, notes


def _read_table(path: Path) -> _Table:
    """A table with columns path and label, whatever they are called in the file."""
    names = None
    if path.suffix.lower() == ".parquet":
        schema = read_schema(path)
        columns = _columns(path, schema.names)
        names = class_names(schema, columns["label"])
        rows = _read_parquet(path, list(columns.values()))
    else:
        rows = _read_text_table(path)
        columns = _columns(path, list(rows.columns))
    rows = pd.DataFrame({name: rows[column] for name, column in columns.items()})
    rows.index = pd.RangeIndex(1, len(rows) + 1)
    missing = (rows[["path", "label"]].isna() | (rows[["path", "label"]] == "")).any(axis=1).to_numpy()
    if missing.any() or not len(rows):
        found = f"row {int(missing.argmax()) + 1} without path or label" if len(rows) else "no rows"
        raise UserError(f"{path}: found {found}, expected a path and a label in each row: fill the table")
    return _Table(path, rows, names)


def _read_text_table(path: Path) -> pd.DataFrame:
    """All cells as text: pandas would take names such as NA for missing ones, and 007 for a number."""
    text = read_text(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # of rows with more cells than columns
            return pd.read_csv(
                io.StringIO(text),
                sep="\t" if path.suffix.lower() == ".tsv" else ",",
                dtype=str,
                keep_default_na=False,
                skipinitialspace=True,
                index_col=False,
            )
    except (ValueError, pd.errors.ParserWarning) as error:
        raise _unreadable(path, error) from error


def _read_parquet(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    try:
        return pq.read_table(path, columns=list(columns)).to_pandas(ignore_metadata=True)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> UserError:
    return UserError(
        f"{path}: found no readable table ({one_line(error)}), expected .csv, .tsv or .parquet: repair it"
    )


def _columns(path: Path, there: Sequence[str]) -> dict[str, str]:
    """What the columns are called in a file, by what they hold."""
    found = {wanted: _find(there, wanted) for wanted in _NAMES}
    for wanted in ("path", "label"):
        if found[wanted] is None:
            raise UserError(
                f"{path}: found columns {', '.join(map(str, there))}, expected one called '{wanted}': rename "
                "it"
            )
    return {wanted: name for wanted, name in found.items() if name is not None}


def _find(there: Iterable[str], wanted: str) -> str | None:
    """The name of the column that holds something, in either case and with or without spaces."""
    names = {str(name).strip().lower(): name for name in there}
    return next((names[name] for name in _NAMES[wanted] if name in names), None)
