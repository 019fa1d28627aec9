"""The layout of prepared data sets under URLs, such as s3a://... and hdfs://..., read image by image."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from sysds_resnet.errors import UserError, one_line
from sysds_resnet.images.sources.base import locate
from sysds_resnet.images.sources.files import Split
from sysds_resnet.images.sources.manifest import MANIFEST, MAX_MANIFEST_BYTES, Manifest
from sysds_resnet.images.sources.shards import (
    ShardSource,
    check_labels,
    check_sizes,
    no_such_array,
    shards_of,
)
from sysds_resnet.system.arrow import arrow
from sysds_resnet.system.file_systems import open_system

if TYPE_CHECKING:
    from pyarrow import NativeFile
    from pyarrow.fs import FileSystem

T = TypeVar("T")


def open_remote_shards(url: str, split: Split) -> RemoteShardSource:
    """Opens a split of a prepared data set, checking the sizes of its files.

    Args:
        url: The URL of the data set's folder, on a file system that Arrow knows.
        split: The split, "train" or "val".

    Raises:
        UserError: If it cannot be reached, is not prepared to its end, or a file is not as the manifest says.
    """
    system, root = reach(url, lambda: open_system(url))
    manifest = _manifest(system, root, url)
    counts, names = shards_of(manifest, url, split)

    def size(name: str) -> int:
        return reach(f"{url}/{name}", lambda: system.get_file_info(f"{root}/{name}").size or 0)

    check_sizes(manifest, url, names, size)
    labels = [
        _labels(system, f"{root}/{name}", f"{url}/{name}", n)
        for (_, name), n in zip(names, counts, strict=True)
    ]
    source = RemoteShardSource([name for name, _ in names], counts, np.concatenate(labels), manifest, url)
    check_labels(source.labels, manifest, url, split)
    return source


def read_manifest(url: str) -> Manifest:
    """Reads the manifest of the prepared data set at `url`; raises a UserError if there is none."""
    return _manifest(*reach(url, lambda: open_system(url)), url)


class RemoteShardSource(ShardSource):
    """A source of images in shards under a URL.

    Args:
        names: The names of the files of images in the folder, one for each shard.
        counts: The number of images in each shard.
        labels: The labels of all images, integers of shape (sum of counts,).
        manifest: The manifest, for the sizes of the images, the classes, the mean and the standard deviation.
        url: The URL of the folder.
    """

    def __init__(
        self, names: list[str], counts: list[int], labels: np.ndarray, manifest: Manifest, url: str
    ) -> None:
        super().__init__([f"{url}/{name}" for name in names], counts, labels, manifest)
        self._url, self._names = url, names
        self._opened: tuple[FileSystem, str] | None = None
        self._files: dict[int, tuple[NativeFile, int]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_opened": None, "_files": {}}  # these belong to one process

    def files(self) -> list[str]:
        """Gives no paths, since the files are on another machine."""
        return []

    def read(self, index: int) -> np.ndarray:
        """Reads the pixels of sample `index`, uint8 of shape (H, W, 3)."""
        shard, place = locate(self._ends, index)
        shape = self._shapes[shard][1:]
        size = int(np.prod(shape))

        def get() -> bytes:
            if shard not in self._files:
                self._files[shard] = self._open(shard)
            file, start = self._files[shard]
            file.seek(start + place * size)
            return file.read(size)

        found = reach(self._paths[shard], get)
        if len(found) != size:
            raise UserError(
                f"{self._paths[shard]}: found {len(found)} bytes of image {place}, expected {size}: restore "
                "the file or prepare the data set anew"
            )
        return np.frombuffer(found, np.uint8).reshape(shape)

    def _open(self, shard: int) -> tuple[NativeFile, int]:
        """Opens the file of a shard, and tells where its first image begins."""
        if self._opened is None:
            self._opened = open_system(self._url)  # kept, as files of a Hadoop system end with it
        system, root = self._opened
        file = system.open_input_file(f"{root}/{self._names[shard]}")
        _check_header(file, self._shapes[shard], np.dtype(np.uint8), self._paths[shard])
        return file, file.tell()


def reach(name: str, act: Callable[[], T]) -> T:
    """Gives what `act` gives; turns errors of the file system into a UserError that begins with `name`."""
    pa = arrow(name)
    try:
        return act()
    except (OSError, pa.ArrowException) as error:
        raise UserError(
            f"{name}: cannot be read ({one_line(error)}), expected a prepared data set there; check the URL "
            "and the access to it"
        ) from error


def _manifest(system: FileSystem, root: str, url: str) -> Manifest:
    def get() -> bytes:
        with system.open_input_stream(f"{root}/{MANIFEST}") as file:
            return file.read(MAX_MANIFEST_BYTES + 1)

    name = f"{url}/{MANIFEST}"
    return Manifest.parse(reach(name, get), name)


def _labels(system: FileSystem, path: str, name: str, count: int) -> np.ndarray:
    def get() -> np.ndarray:
        with system.open_input_file(path) as file:
            _check_header(file, (count,), np.dtype(np.int64), name)
            return np.frombuffer(file.read(), np.int64)

    return reach(name, get)


def _check_header(file: NativeFile, shape: tuple[int, ...], dtype: np.dtype, name: str) -> None:
    """Reads the header of an array, and raises a UserError if its shape or type is another."""
    try:
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError("another version of the format")
        found = np.lib.format.read_array_header_1_0(file)
        if found != (shape, False, dtype):
            raise ValueError(f"{found[2]} of shape {found[0]}")
    except ValueError as error:
        raise no_such_array(name, error, dtype, shape) from error
