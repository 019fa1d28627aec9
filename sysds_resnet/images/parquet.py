"""Images in rows of parquet files."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sysds_resnet.errors import NoSuchSplit, UserError, one_line
from sysds_resnet.files import open_regular
from sysds_resnet.images.files import LABEL_COLUMNS, Split, find_files
from sysds_resnet.images.labels import LabelColumn, Labelled, assign_labels
from sysds_resnet.images.sources import below, locate

_ROW_GROUPS = 4  # in memory, for each process


def open_parquet(root: Path, split: Split) -> ParquetSource:
    """Open train*.parquet and val*.parquet; class names come from what `datasets` left in the files.

    All files must have the same columns. Their lists of classes may differ: numbers mean what they mean in
    their own file.
    """
    found = {name: find_files(root, name, ".parquet") for name in ("train", "val")}
    if not found[split].files:
        raise NoSuchSplit(f"data set {root}: found no {split}*.parquet, expected some: add them")
    columns: dict[Split, list[LabelColumn]] = {}
    first: tuple[Path, str, str, str] | None = None
    for name, (files, _) in found.items():
        for path in files:
            schema = read_schema(path)
            image, label = _find_columns(path, schema)
            kind = _kind(path, schema.field(label))
            first = first or (path, image, label, kind)
            if (image, label, kind) != first[1:]:
                raise UserError(
                    f"{path}: found images in {image!r} and {kind} labels in {label!r}, expected "
                    f"{first[1]!r} and {first[3]} labels in {first[2]!r} as in {first[0]}: write all files "
                    "alike"
                )
            columns.setdefault(name, []).append(_labels(path, schema, label))
    own = assign_labels(root, columns, split)
    notes = found["val"].notes + own.notes
    return ParquetSource([str(path) for path in found[split].files], first[1], own, root, notes)


def read_schema(path: Path) -> pa.Schema:
    """The columns of a parquet file."""
    try:
        open_regular(path).close()
        return pq.read_schema(path)
    except (OSError, pa.ArrowException) as error:
        raise UserError(
            f"{path}: found no readable parquet file ({one_line(error)}), expected one: restore it"
        ) from error


def class_names(schema: pa.Schema, label: str) -> list[str] | None:
    """Names of numbered classes that `datasets` left in a file, if any."""
    try:
        names = json.loads(schema.metadata[b"huggingface"])["info"]["features"][label]["names"]
        return [str(name) for name in names]
    except (KeyError, TypeError, ValueError):
        return None


def _find_columns(path: Path, schema: pa.Schema) -> tuple[str, str]:
    """Names of the columns of images and labels."""
    image = next((field.name for field in schema if _holds_images(field)), None)
    label = next((name for name in LABEL_COLUMNS if name in schema.names), None)
    if image is None or label is None:
        raise UserError(
            f"{path}: found columns {', '.join(schema.names)}, expected image bytes and a label: name the "
            "label's column 'label'"
        )
    return image, label


def _holds_images(field: pa.Field) -> bool:
    kind = field.type
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _kind(path: Path, field: pa.Field) -> str:
    """Whether labels are numbers or names."""
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return "numbered"
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_boolean(kind):
        return "named"
    raise UserError(
        f"{path}: found labels of type {kind} in {field.name!r}, expected one number or name for each image: "
        "convert them"
    )


def _labels(path: Path, schema: pa.Schema, label: str) -> LabelColumn:
    try:
        values = pq.read_table(path, columns=[label])[label].to_pandas()
    except (OSError, pa.ArrowException) as error:
        raise UserError(
            f"{path}: found a damaged parquet file ({one_line(error)}), expected a whole one: restore it"
        ) from error
    return LabelColumn(values, lambda i: f"{path}, row {i}", class_names(schema, label))


class ParquetSource:
    """Images in rows of parquet files, as Hugging Face's `datasets` writes them.

    Files are read a row group at a time, the last few of which stay in memory: `datasets` makes groups of 100
    images, which is quick enough in random order; of groups of thousands, only reading in order is.

    Args:
        files: parquet files.
        column: the image column, of bytes or of structs with a field `bytes`.
        labels: those of the images, over all files, and the names of the classes.
        root: folder of the data set.
        notes: see `Source`.
    """

    def __init__(
        self, files: Sequence[str], column: str, labels: Labelled, root: str | Path, notes: Sequence[str] = ()
    ) -> None:
        self._files = list(files)
        self._root = str(root)
        self.labels, self.classes, self.notes = labels.labels, labels.classes, list(notes)
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
