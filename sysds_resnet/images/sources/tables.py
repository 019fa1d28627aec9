"""The layout with tables of paths and labels."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sysds_resnet.classes.file import first_of
from sysds_resnet.errors import NoSuchSplit, Undivided, UserError, one_line
from sysds_resnet.images.sources.base import FileSource
from sysds_resnet.images.sources.files import (
    LABEL_COLUMNS,
    PATH_COLUMNS,
    TEST_NAMES,
    Split,
    columns_called,
    entries,
    files_of_split,
    plain_column,
    split_named,
    test_taken,
    test_unused,
)
from sysds_resnet.images.sources.labels import LabelColumn, assign_labels
from sysds_resnet.images.sources.lists import common_folders, is_tools, note_on_tools, notes_on_paths
from sysds_resnet.images.sources.parquet import class_names, read_schema
from sysds_resnet.system.arrow import arrow
from sysds_resnet.system.files import read_text

if TYPE_CHECKING:
    import pandas as pd

_ENDINGS = (".csv", ".tsv", ".parquet")
_NAMES = {"path": PATH_COLUMNS, "label": LABEL_COLUMNS, "split": ("split",)}


@dataclass(frozen=True)
class _Table:
    """The paths and labels in a file.

    Attributes:
        file: The file in which they stand.
        rows: The rows, with columns path, label and, where there is one, split; the index counts the file's
            rows from 1.
        names: The names of numbered classes, where the file tells them.
        notes: The lines for people to read on what was taken, or left out.
    """

    file: Path
    rows: pd.DataFrame
    names: list[str] | None
    notes: list[str]

    def labels(self) -> LabelColumn:
        index = self.rows.index
        return LabelColumn(self.rows["label"].array, lambda i: f"{self.file}, row {index[i]}", self.names)


def open_table(root: Path, split: Split) -> FileSource:
    """Opens a split of train.csv and val.csv in a folder, or of a table with a column "split".

    Paths start at the folder of the table.
    """
    folder = root if root.is_dir() else root.parent
    if root.is_dir():
        found = {name: find_table(root, name) for name in ("train", "val")}
        read = {name: _read_table(path) for name, path in found.items() if path is not None}
        notes = _notes_on_test(root, found["val"])
        tables = {name: _rows_of(table, split_named(table.file.stem) or name) for name, table in read.items()}
    else:
        table = _read_table(root)
        tables, notes = _by_split(table) if "split" in table.rows else ({"train": table}, [])
        if "split" not in table.rows and split == "val":
            raise Undivided(
                f"{table.file}: found columns path and label, expected one called 'split' with train and val "
                "too: add it, or give a folder with train.csv and val.csv"
            )
    if split not in tables:
        raise NoSuchSplit(
            f"data set {root}: found no images for {split}, expected a {split}.csv, or {split} in a column "
            "'split': add them"
        )
    tables = {name: _checked(table) for name, table in tables.items()}
    columns = {name: [table.labels()] for name, table in tables.items()}
    labels = {name: assign_labels(folder, columns, name) for name in tables}
    listed = {name: table.rows["path"].tolist() for name, table in tables.items()}
    paths = {name: [os.path.join(folder, path) for path in some] for name, some in listed.items()}
    own = labels[split]
    notes += [note for table in tables.values() for note in table.notes] + own.notes
    notes += common_folders(root, {name: (listed[name], labels[name]) for name in listed})[1]
    notes += notes_on_paths(folder, paths, own.labels, split)
    notes = list(dict.fromkeys(notes))  # both splits of one table have its notes
    return FileSource(paths[split], own.labels, own.classes, folder, notes)


def find_table(root: Path, split: Split) -> Path | None:
    """Gives the table of paths and labels of a split in a folder; or the path itself, if it is a table.

    The test split's table is taken for validation where there is no other.
    """
    if root.is_file():
        return root if root.name.lower().endswith(_ENDINGS) else None
    for path in files_of_split(root, split, _ENDINGS):
        if path.suffix.lower() != ".parquet" or columns_called(read_schema(path).names, PATH_COLUMNS):
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
    """Gives the rows of each split that the column "split" names, and notes on rows that are left out."""
    told, kinds = _kinds(table)
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
            f"but {first_of(names)}"
        )
    parts = {name: table.rows[kinds == name] for name in ("train", "val")}
    return {name: replace(table, rows=rows) for name, rows in parts.items() if len(rows)}, notes


def _kinds(table: _Table) -> tuple[pd.Series, pd.Series]:
    """Gives what the column "split" says, and the split that it means: train, val, test, or "" for none."""
    told = table.rows["split"].fillna("").astype(str)
    return told, told.map({name: split_named(name) or "" for name in told.unique()})


def _rows_of(table: _Table, split: str) -> _Table:
    """Gives the rows of a file called like a split, without those that its column "split" gives to others."""
    if "split" not in table.rows:
        return table
    _, kinds = _kinds(table)
    if (kinds == "").all():  # a column that means something else
        return table
    others = (kinds != split).sum()
    if others == len(kinds):
        raise UserError(
            f"{table.file}: found no rows that are {split} by the column 'split', expected some: correct the "
            "column or the file's name, or give a table of all splits itself as the data set"
        )
    note = f"data set {table.file}: left out {others} rows that are not {split} by the column 'split'"
    return replace(table, rows=table.rows[kinds == split], notes=table.notes + ([note] if others else []))


def _checked(table: _Table) -> _Table:
    """Gives a table of one split without the files of tools, checking that all rows have a path and a label.

    Raises:
        UserError: If a path or a label is missing.
    """
    rows = table.rows
    missing = rows[["path", "label"]].isna() | (rows[["path", "label"]] == "")
    lacking = missing.any(axis=1).to_numpy()
    if missing["label"].all() and len(rows) and _is_test(table):
        raise _unlabelled(table.file)
    if lacking.any() or not len(rows):
        found = f"row {rows.index[lacking.argmax()]} without path or label" if len(rows) else "no rows"
        raise UserError(
            f"{table.file}: found {found}, expected a path and a label in each row: fill the table"
        )
    tools = rows["path"].map(lambda path: is_tools(str(path))).to_numpy(bool)
    if tools.all():
        raise UserError(f"{table.file}: found hidden files alone, expected images: correct the paths")
    left_out = note_on_tools(table.file, rows["path"][tools].tolist())
    return replace(table, rows=rows[~tools], notes=table.notes + left_out)


def _is_test(table: _Table) -> bool:
    if "split" in table.rows:
        return bool((_kinds(table)[1] == "test").all())
    return split_named(table.file.stem) == "test"


def _unlabelled(path: Path) -> UserError:
    return UserError(
        f"{path}: found a test split without labels, and no val, expected labels for validation: put some of "
        "the training images into a val split"
    )


def _read_table(path: Path) -> _Table:
    """Reads a table, and calls its columns path, label and split, whatever they are called in the file."""
    import pandas as pd  # not at the top: readers of images start sooner without it

    names = None
    if path.suffix.lower() == ".parquet":
        schema = read_schema(path)
        columns, notes = _columns(path, schema.names)
        names = class_names(schema, columns["label"])
        rows = _read_parquet(path, list(columns.values()))
    else:
        rows = _read_text_table(path)
        columns, notes = _columns(path, list(rows.columns))
    rows = pd.DataFrame({name: rows[column] for name, column in columns.items()})
    return _Table(path, rows, names, notes)


def _read_text_table(path: Path) -> pd.DataFrame:
    """Reads all cells as text: pandas would take names such as NA for missing ones, and 007 for a number."""
    import pandas as pd  # not at the top: readers of images start sooner without it

    text = read_text(path).lstrip("\r\n")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # rows with more cells than columns
            cells = pd.read_csv(
                io.StringIO(text),
                sep="\t" if path.suffix.lower() == ".tsv" else ",",
                header=None,  # pandas would rename a column that is there twice
                dtype=str,
                keep_default_na=False,
                skipinitialspace=True,
                skip_blank_lines=False,
                index_col=False,
            ).fillna("")
    except (ValueError, pd.errors.ParserWarning) as error:
        raise _unreadable(path, error) from error
    rows = cells[1:].set_axis(cells.iloc[0].tolist(), axis=1)
    return rows[(rows != "").any(axis=1)]  # blank lines count in the numbers of rows, as in editors


def _read_parquet(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    import pandas as pd  # not at the top: readers of images start sooner without it

    pa = arrow(path)
    try:
        rows = pa.parquet.read_table(path, columns=list(columns)).to_pandas(ignore_metadata=True)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise _unreadable(path, error) from error
    return rows.set_axis(pd.RangeIndex(1, len(rows) + 1))


def _unreadable(path: Path, error: Exception) -> UserError:
    return UserError(
        f"{path}: found no readable table ({one_line(error)}), expected .csv, .tsv or .parquet: repair it"
    )


def _columns(path: Path, there: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Gives the names in a file of the columns that are wanted, and notes where others would do too."""
    fitting = {wanted: columns_called(there, called) for wanted, called in _NAMES.items()}
    notes = []
    for wanted, names in fitting.items():
        if not names and wanted == "label" and fitting["path"] and split_named(path.stem) == "test":
            raise _unlabelled(path)
        if not names and wanted != "split":
            raise UserError(
                f"{path}: found columns {', '.join(map(str, there))}, expected one called '{wanted}': rename "
                "it"
            )
        called = [plain_column(name) for name in names]
        if len(called) > 1 and called[0] == called[1]:  # columns of one name stand together
            raise UserError(
                f"{path}: found more than one column called {called[0]!r}, in either case, expected one: "
                "rename or drop the others"
            )
        if len(names) > 1:
            notes.append(
                f"data set {path}: the {wanted} is taken from the column {names[0]!r}, not from "
                + ", ".join(map(repr, names[1:]))
            )
    return {wanted: names[0] for wanted, names in fitting.items() if names}, notes
