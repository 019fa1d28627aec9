"""Images in rows of parquet files."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from sysds_resnet.errors import NoSuchSplit, UserError, one_line
from sysds_resnet.images.files import LABEL_COLUMNS, Split, find_files, number_labels
from sysds_resnet.images.sources import below, locate

_ROW_GROUPS = 4  # in memory, for each process


def open_parquet(root: Path, split: Split) -> ParquetSource:
    """Open train*.parquet and val*.parquet; class names come from what `datasets` left in the files."""
    files = {name: find_files(root, name, ".parquet") for name in ("train", "val")}
    if not files[split]:
        raise NoSuchSplit(f"data set {root}: found no {split}*.parquet, expected some: add them")
    schema = read_schema(files[split][0])
    image = next((field.name for field in schema if _holds_images(field)), None)
    label = next((name for name in LABEL_COLUMNS if name in schema.names), None)
    if image is None or label is None:
        raise UserError(
            f"{files[split][0]}: found columns {', '.join(schema.names)}, expected image bytes and a label: "
            "name the label's column 'label'"
        )
    labels = {name: _read_column(parts, label) for name, parts in files.items() if parts}
    own, classes = number_labels(root, labels, split, _class_names(schema, label))
    return ParquetSource([str(path) for path in files[split]], image, own, classes, root)


def read_schema(path: Path) -> pa.Schema:
    """The columns of a parquet file."""
    try:
        return pq.read_schema(path)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path}: found no readable parquet file ({one_line(error)}): restore it") from error


def _read_column(files: list[Path], column: str) -> pd.Series:
    try:
        return pd.concat([pq.read_table(path, columns=[column])[column].to_pandas() for path in files])
    except (OSError, pa.ArrowException) as error:
        raise UserError(
            f"{files[0].parent}: found parquet files that differ or are damaged ({one_line(error)}): "
            "restore them"
        ) from error


def _holds_images(field: pa.Field) -> bool:
    kind = field.type
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _class_names(schema: pa.Schema, label: str) -> list[str] | None:
    """What `datasets` leaves in the file."""
    try:
        return list(json.loads(schema.metadata[b"huggingface"])["info"]["features"][label]["names"])
    except (KeyError, TypeError, ValueError):
        return None


class ParquetSource:
    """Images in rows of parquet files, as Hugging Face's `datasets` writes them.

    Files are read a row group at a time, the last few of which stay in memory: `datasets` makes groups of 100
    images, which is quick enough in random order; of groups of thousands, only reading in order is.

    Args:
        files: parquet files.
        column: the image column, of bytes or of structs with a field `bytes`.
        labels: integers of shape (n,), over all files.
        classes: names of the classes.
        root: folder of the data set.
    """

    def __init__(
        self, files: Sequence[str], column: str, labels: np.ndarray, classes: Sequence[str], root: str | Path
    ) -> None:
        self._files = list(files)
        self._root = str(root)
        self.labels = np.asarray(labels, dtype=np.int64)
        self.classes = list(classes)
        self._column = column
        counts, groups = [], []
        for number, path in enumerate(self._files):
            metadata = pq.read_metadata(path)
            for group in range(metadata.num_row_groups):
                groups.append((number, group))
                counts.append(metadata.row_group(group).num_rows)
        self._groups = np.array(groups).reshape(-1, 2)
        self._ends = np.cumsum(counts)
        self._cache: OrderedDict[int, pa.Array] = OrderedDict()

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_cache": OrderedDict()}

    def name(self, index: int) -> str:
        """FILE, row I, counted from 0 in the file."""
        group, _ = locate(self._ends, index)
        number, within = self._groups[group]
        first = self._ends[group - within - 1] if group > within else 0
        return f"{self._files[number]}, row {index - first}"

    def relative_name(self, index: int) -> str:
        """The same without the folder of the data set."""
        return below(self._root, self.name(index))

    def files(self) -> Iterable[str]:
        """The parquet files."""
        return self._files

    def read(self, index: int) -> bytes:
        """The bytes in the image column."""
        group, row = locate(self._ends, index)
        if group not in self._cache:
            self._cache[group] = self._read_group(group, index)
            while len(self._cache) > _ROW_GROUPS:
                self._cache.popitem(last=False)
        data = self._cache[group][row].as_py()
        if data is None:
            raise UserError(
                f"image {self.name(index)}: found no bytes, expected an image file's: fill or drop the row"
            )
        return data

    def _read_group(self, group: int, index: int) -> pa.Array:
        number, within = (int(value) for value in self._groups[group])
        try:
            with pq.ParquetFile(self._files[number], memory_map=True) as file:
                rows = file.read_row_group(within, columns=[self._column])[0].combine_chunks()
        except (OSError, pa.ArrowException) as error:
            raise UserError(
                f"image {self.name(index)}: found a damaged row group ({one_line(error)}), expected one that "
                "pyarrow reads: restore the file"
            ) from error
        return rows.field("bytes") if pa.types.is_struct(rows.type) else rows
