"""The files of predictions, written part by part: tables as CSV, JSON lines or parquet; arrays of scores."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Literal, Protocol

import numpy as np

from sysds_resnet.errors import UserError, printable
from sysds_resnet.network.inference import log_softmax
from sysds_resnet.system.arrow import arrow
from sysds_resnet.system.csv_cells import to_cell
from sysds_resnet.system.files import write_whole

if TYPE_CHECKING:
    import pandas as pd
    from pyarrow.parquet import ParquetWriter as Writer

Format = Literal["csv", "jsonl", "parquet"]

Rows = tuple["pd.DataFrame", np.ndarray]
"""The table that `to_table` makes of N images, and their scores, of shape (N, K)."""

ROW_GROUP = 10_000
"""The number of rows that wait in memory until they are written into a parquet file as a row group."""


def choose_format(path: str, asked: Format | None) -> Format:
    """Chooses the format of a file: what was asked for, or that of its ending, or CSV if it has none.

    Raises:
        UserError: If no format was asked for, and the ending is an unknown one.
    """
    endings: dict[str, Format] = {"": "csv", ".csv": "csv", ".jsonl": "jsonl", ".parquet": "parquet"}
    found = asked or endings.get(Path(path).suffix.lower())
    if found is None:
        raise UserError(
            f"{path}: found ending {Path(path).suffix}, expected .csv, .jsonl or .parquet; rename it or add "
            "--format"
        )
    return found


def to_table(paths: Sequence[str], scores: np.ndarray, classes: list[str] | None, top: int) -> pd.DataFrame:
    """Tabulates the most probable classes of N images; of equally probable ones, the first comes first.

    Args:
        paths: The paths of the images.
        scores: The scores, of shape (N, K), whose softmax is the probabilities.
        classes: The names of the classes, if they have any.
        top: The number of classes for each image; all K if there are fewer.

    Returns:
        A table with the columns path; class_1 ... class_TOP, the classes from 0; prob_1 ..., their
        probabilities; and label_1 ..., their names, if there are any.
    """
    import pandas as pd  # not at the top: commands start sooner without it

    order = np.argsort(-scores, axis=1, kind="stable")[:, :top]
    probabilities = np.exp(np.take_along_axis(log_softmax(scores), order, axis=1))
    columns = {"path": list(paths)}
    ranks = range(order.shape[1])
    columns |= {f"class_{i + 1}": order[:, i] for i in ranks}
    columns |= {f"prob_{i + 1}": probabilities[:, i] for i in ranks}
    if classes:
        columns |= {f"label_{i + 1}": [classes[k] for k in order[:, i]] for i in ranks}
    return pd.DataFrame(columns)


def save(parts: Iterator[Rows], out: Path | None, kind: Format, logits: Path | None) -> int:
    """Writes tables and scores part by part, into files that are there whole or not at all.

    No file is begun, and no folder made, before the first part is there.

    Args:
        parts: The tables and scores, at least one part.
        out: The file for the tables, or None for standard output.
        kind: The format of the tables.
        logits: The .npy file for the scores, if any.

    Returns:
        The number of rows.
    """
    first = next(parts)
    n = 0

    def write(table_path: Path | None, scores_path: Path | None) -> None:
        nonlocal n
        with (
            table_path.open("wb") if table_path else nullcontext(sys.stdout.buffer) as file,
            RowsFile(scores_path, first[1].shape[1]) if scores_path else nullcontext() as rows,
        ):
            writer = _WRITERS[kind](file)
            for table, scores in chain([first], parts):
                writer.write(table)
                if rows is not None:
                    rows.write(scores)
                n += len(table)
            writer.close()
            file.flush()

    _whole(logits, lambda scores_path: _whole(out, lambda table_path: write(table_path, scores_path)))
    return n


def _whole(path: Path | None, write: Callable[[Path | None], None]) -> None:
    if path is None:
        write(None)
    else:
        write_whole({path: write})


class TableWriter(Protocol):
    """A writer of tables with the same columns, one below the other."""

    def write(self, table: pd.DataFrame) -> None:
        """Adds rows."""
        ...

    def close(self) -> None:
        """Writes what is left; the file stays open."""
        ...


class CsvWriter:
    """A writer of comma-separated values in UTF-8, with the names of the columns in the first line.

    The names of images and classes are written by `to_cell`, so that no spreadsheet takes them for formulas.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._begun = False

    def write(self, table: pd.DataFrame) -> None:
        """Adds rows."""
        names = {name: table[name].map(to_cell) for name in table if name.split("_")[0] in ("path", "label")}
        text = table.assign(**names).to_csv(index=False, header=not self._begun, lineterminator="\n")
        self._file.write(text.encode())
        self._begun = True

    def close(self) -> None:
        """Does nothing: no rows are left to write."""


class JsonlWriter:
    """A writer of JSON lines in UTF-8: one object for each row."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, table: pd.DataFrame) -> None:
        """Adds rows."""
        rows = table.to_dict("records")
        lines = [printable(json.dumps(row, ensure_ascii=False)) + "\n" for row in rows]
        self._file.write("".join(lines).encode())

    def close(self) -> None:
        """Does nothing: no rows are left to write."""


class ParquetWriter:
    """A writer of parquet, in row groups of at least `ROW_GROUP` rows, but for the last."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._arrow = arrow("parquet")
        self._writer: Writer | None = None
        self._waiting: list[pd.DataFrame] = []

    def write(self, table: pd.DataFrame) -> None:
        """Adds rows."""
        self._waiting.append(table)
        if sum(map(len, self._waiting)) >= ROW_GROUP:
            self._flush()

    def close(self) -> None:
        """Writes the last rows and the file's end."""
        if self._waiting:
            self._flush()
        if self._writer is not None:
            self._writer.close()

    def _flush(self) -> None:
        import pandas as pd  # not at the top: commands start sooner without it

        pa = self._arrow
        kinds = {"path": pa.string(), "class": pa.int64(), "prob": pa.float64(), "label": pa.string()}
        table = pd.concat(self._waiting)
        schema = pa.schema([(name, kinds[name.split("_")[0]]) for name in table.columns])
        if self._writer is None:
            self._writer = pa.parquet.ParquetWriter(self._file, schema)
        self._writer.write_table(pa.Table.from_pandas(table, schema, preserve_index=False))
        self._waiting = []


_WRITERS: dict[Format, Callable[[BinaryIO], TableWriter]] = {
    "csv": CsvWriter,
    "jsonl": JsonlWriter,
    "parquet": ParquetWriter,
}


class RowsFile:
    """A .npy file of float64 in rows whose number is known only at the end. Use it in a `with` statement.

    Args:
        path: The file to write.
        columns: The number of values in a row.
    """

    def __init__(self, path: Path, columns: int) -> None:
        self._file = path.open("wb")
        self._shape = (0, columns)
        self._write_header()

    def __enter__(self) -> RowsFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: BaseException | TracebackType | None) -> None:
        with self._file:
            if kind is None:
                self._file.seek(0)
                self._write_header()

    def write(self, rows: np.ndarray) -> None:
        """Adds rows, of shape (N, columns)."""
        self._file.write(np.ascontiguousarray(rows, "<f8").tobytes())
        self._shape = (self._shape[0] + len(rows), self._shape[1])

    def _write_header(self) -> None:
        # NumPy leaves room for a greater first number, so that the header keeps its length
        header = {"descr": "<f8", "fortran_order": False, "shape": self._shape}
        np.lib.format.write_array_header_1_0(self._file, header)
