"""The layout with images in rows of parquet files."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sysds_resnet.classes.file import first_of
from sysds_resnet.errors import NoSuchSplit, UserError, one_line
from sysds_resnet.images.sources.base import below, locate
from sysds_resnet.images.sources.files import (
    IMAGE_COLUMNS,
    LABEL_COLUMNS,
    LFS,
    PATH_COLUMNS,
    Split,
    SplitFiles,
    columns_called,
    find_files,
    refuse_pointer,
)
from sysds_resnet.images.sources.labels import LabelColumn, Labelled, assign_labels
from sysds_resnet.system.arrow import arrow
from sysds_resnet.system.files import open_regular

if TYPE_CHECKING:
    import pandas as pd
    from pyarrow import Array, Field, Schema

_ROW_GROUPS = 4  # row groups that each process keeps in memory
_SHOWN = 40  # characters of a column's type that an error shows


def open_parquet(root: Path, split: Split) -> ParquetSource:
    """Opens a split of train*.parquet and val*.parquet.

    The names of the classes come from what Hugging Face's `datasets` left in the files. All files must have
    the same columns of images and labels. Their lists of classes may differ: numbers mean what they mean in
    their own file. A test split without labels, as competitions have, is not used for validation.
    """
    found = {name: find_files(root, name, ".parquet") for name in ("train", "val")}
    unlabelled = found["val"].is_test and not any(_labelled(path) for path in found["val"].files)
    if unlabelled:
        found["val"] = SplitFiles([], [f"data set {root}: the test split is not used: it has no labels"])
    if not found[split].files:
        but = " but a test split without labels" if unlabelled else ""
        raise NoSuchSplit(f"data set {root}: found no {split}*.parquet{but}, expected some: add them")
    columns: dict[Split, list[LabelColumn]] = {}
    first: tuple[Path, str, str, str] | None = None
    notes: list[str] = []
    for name, some in found.items():
        notes += some.notes
        for path in some.files:
            schema = read_schema(path)
            image, others = _image_column(path, schema)
            label, other_labels = _label_column(path, schema)
            kind = _kind(path, schema.field(label))
            if first is None and (others or other_labels):
                notes.append(
                    f"data set {root}: images are in {image!r} and labels in {label!r}; not used, "
                    f"though like them: {first_of([*others, *other_labels])}"
                )
            first = first or (path, image, label, kind)
            if (image, label, kind) != first[1:]:
                raise UserError(
                    f"{path}: found images in {image!r} and {kind} labels in {label!r}, expected "
                    f"{first[1]!r} and {first[3]} labels in {first[2]!r} as in {first[0]}: write all files "
                    "alike"
                )
            columns.setdefault(name, []).append(_labels(path, schema, label))
    own = assign_labels(root, columns, split)
    return ParquetSource([str(path) for path in found[split].files], first[1], own, root, notes + own.notes)


def read_schema(path: Path) -> Schema:
    """Reads the columns of a parquet file."""
    pa = arrow(path)
    try:
        with open_regular(path) as file:
            refuse_pointer(path, file.read(len(LFS)))
        return pa.parquet.read_schema(path)
    except (OSError, pa.ArrowException) as error:
        raise UserError(
            f"{path}: found no readable parquet file ({one_line(error)}), expected one: restore it"
        ) from error


def class_names(schema: Schema, label: str) -> list[str] | None:
    """Gives the names of numbered classes that Hugging Face's `datasets` left in a file, if any."""
    try:
        return [str(name) for name in _features(schema)[label]["names"]]
    except (KeyError, TypeError):
        return None


def _features(schema: Schema) -> dict[str, Any]:
    """Gives what `datasets` left in a file on its columns; nothing, if others wrote it."""
    try:
        return dict(json.loads(schema.metadata[b"huggingface"])["info"]["features"])
    except (KeyError, TypeError, ValueError):
        return {}


def _image_column(path: Path, schema: Schema) -> tuple[str, list[str]]:
    """Gives the name of the image column, and those of others with bytes too, such as masks and digests.

    Where there are several, it is the one that is called as images are, or that `datasets` says to be images.
    """
    there = [field.name for field in schema if _holds_images(field)]
    if not there:
        raise UserError(
            f"{path}: found columns {_described(schema)}, expected one of images' bytes (binary, or a struct "
            f"with 'bytes'): write the files' bytes into it, or call a column of paths {PATH_COLUMNS[0]!r}"
        )
    features = _features(schema)
    typed = [
        name
        for name in there
        if isinstance(features.get(name), dict) and features[name].get("_type") == "Image"
    ]
    called = columns_called(there, IMAGE_COLUMNS)
    both = [name for name in typed if name in called]
    image = next((some[0] for some in (there, both, called, typed) if len(some) == 1), None)
    if image is None:
        raise UserError(
            f"{path}: found {len(there)} columns that may hold images ({', '.join(there)}), expected one: "
            f"call it {IMAGE_COLUMNS[0]!r}, and no other"
        )
    return image, [name for name in there if name != image]


def _label_column(path: Path, schema: Schema) -> tuple[str, list[str]]:
    """Gives the name of the label column, and those of others that are called as labels are."""
    called = columns_called(schema.names, LABEL_COLUMNS)
    if not called:
        raise UserError(
            f"{path}: found columns {_described(schema)}, and none of labels by its name, expected one "
            f"called {', '.join(LABEL_COLUMNS)}: name the label's column {LABEL_COLUMNS[0]!r}"
        )
    label, *others = called
    return label, others


def _described(schema: Schema) -> str:
    return ", ".join(f"{field.name} ({str(field.type)[:_SHOWN]})" for field in schema)


def _holds_images(field: Field) -> bool:
    types, kind = arrow(field.name).types, field.type
    if types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0
    return types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind)


def _kind(path: Path, field: Field) -> str:
    """Tells whether labels are numbers or names."""
    types = arrow(path).types
    kind = field.type.value_type if types.is_dictionary(field.type) else field.type
    if types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind):
        return "numbered"
    if (
        types.is_string(kind)
        or types.is_large_string(kind)
        or types.is_string_view(kind)
        or types.is_boolean(kind)
    ):
        return "named"
    raise UserError(
        f"{path}: found labels of type {kind} in {field.name!r}, expected one number or name for each image: "
        "convert them"
    )


def _labelled(path: Path) -> bool:
    """Tells whether a file has labels: competitions' test files have no column, no values, or -1 alone."""
    import pandas as pd  # not at the top: readers of images start sooner without it

    schema = read_schema(path)
    if not columns_called(schema.names, LABEL_COLUMNS):
        return False
    values = _values(path, _label_column(path, schema)[0]).dropna()
    return len(values) > 0 and not (pd.api.types.is_numeric_dtype(values) and (values == -1).all())


def _labels(path: Path, schema: Schema, label: str) -> LabelColumn:
    return LabelColumn(_values(path, label), lambda i: f"{path}, row {i}", class_names(schema, label))


def _values(path: Path, label: str) -> pd.Series:
    pa = arrow(path)
    try:
        return pa.parquet.read_table(path, columns=[label])[label].to_pandas()
    except (OSError, pa.ArrowException) as error:
        raise UserError(
            f"{path}: found a damaged parquet file ({one_line(error)}), expected a whole one: restore it"
        ) from error


class ParquetSource:
    """A source of images in rows of parquet files, as Hugging Face's `datasets` writes them.

    Files are read a row group at a time, and the last few groups stay in memory. `datasets` makes groups of
    100 images, which are quick enough in random order; groups of thousands are quick enough only in order.

    Args:
        files: The paths of the parquet files.
        column: The image column, of bytes or of structs with a field `bytes`.
        labels: The labels of the images of all files, and the names of the classes.
        root: The folder of the data set, which relative names leave out.
        notes: The lines for people to read on what was left out of the data set or is odd in it.
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
            metadata = arrow(path).parquet.read_metadata(path)
            for group in range(metadata.num_row_groups):
                groups.append((number, group))
                counts.append(metadata.row_group(group).num_rows)
        self._groups = np.array(groups).reshape(-1, 2)
        self._ends = np.cumsum(counts)
        self._cache: OrderedDict[int, Array] = OrderedDict()

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_cache": OrderedDict()}

    def name(self, index: int) -> str:
        """Gives the file of sample `index` and its row, counted from 0 in the file."""
        group, _ = locate(self._ends, index)
        number, within = self._groups[group]
        first = self._ends[group - within - 1] if group > within else 0
        return f"{self._files[number]}, row {index - first}"

    def relative_name(self, index: int) -> str:
        """Gives the name of sample `index` without the folder of the data set."""
        return below(self._root, self.name(index))

    def files(self) -> Iterable[str]:
        """Gives the paths of the parquet files."""
        return self._files

    def read(self, index: int) -> bytes:
        """Gives the bytes in the image column of sample `index`."""
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

    def _read_group(self, group: int, index: int) -> Array:
        number, within = (int(value) for value in self._groups[group])
        pa = arrow(self._files[number])
        try:
            with pa.parquet.ParquetFile(self._files[number], memory_map=True) as file:
                rows = file.read_row_group(within, columns=[self._column])[0].combine_chunks()
        except (OSError, pa.ArrowException) as error:
            raise UserError(
                f"image {self.name(index)}: found a damaged row group ({one_line(error)}), expected one that "
                "pyarrow reads: restore the file"
            ) from error
        return rows.field("bytes") if pa.types.is_struct(rows.type) else rows
