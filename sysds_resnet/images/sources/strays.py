"""Files that look like a data set but are in no layout, and what errors say about them."""

from __future__ import annotations

from pathlib import Path

from sysds_resnet.classes.file import first_of
from sysds_resnet.images.sources.files import entries, names_split, split_named
from sysds_resnet.images.sources.tools import is_tool

_NO_SPLIT = (
    "in no split by its name: put the word train or val into it, as in train-000000.tar, or give a table "
    "with a column 'split' itself as the data set"
)
_ADVICE = {
    (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst"): "compressed, and only an "
    "uncompressed .tar can be read image by image: unpack it once, such as with gunzip",
    (".csv.gz", ".tsv.gz", ".csv.bz2", ".csv.xz", ".csv.zip"): "compressed: unpack it, such as with gunzip",
    (".tar", ".parquet", ".csv", ".tsv"): _NO_SPLIT,
    (".zip", ".7z", ".rar"): "an archive: unpack it",
    (
        ".arrow",
        ".tfrecord",
        ".tfrecords",
        ".rec",
        ".lmdb",
        ".mdb",
        ".h5",
        ".hdf5",
        ".npz",
        ".beton",
        ".pt",
    ): "a form that is not read: write image files, parquet or tar",
}


def stray_files(root: Path, only: str = "") -> str:
    """Says in brackets which files in a folder look like a data set and why they are none, if any do.

    Args:
        root: The folder of the data set.
        only: A part that the names of such files must have: the ending of the layout that is read, which
            compressed files have too. By default any file counts.
    """
    places = (".", "data", *(name for name in entries(root) if split_named(name)))
    names = [
        (Path(place) / name).as_posix()
        for place in places
        for name in entries(root / place)
        if not is_tool(name) and only in name.lower()
    ]
    for endings, advice in _ADVICE.items():
        found = [name for name in names if name.lower().endswith(endings)]
        if advice is _NO_SPLIT:
            found = [name for name in found if not names_split(name)]
        if found:
            return f" (but {first_of(found)}: {advice})"
    return ""
