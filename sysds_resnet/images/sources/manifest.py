"""The description of a prepared data set, manifest.json, which is checked as it may come from anybody."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, ClassVar

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    StrictFloat,
    StrictInt,
    StrictStr,
    TypeAdapter,
    ValidationError,
)

from sysds_resnet.errors import UserError, one_line
from sysds_resnet.images.pixels.limits import MAX_PIXELS
from sysds_resnet.images.sources.files import Split
from sysds_resnet.system.files import open_regular

FORMAT = "sysds_resnet shards 1"
MANIFEST = "manifest.json"
PROGRESS = "progress.json"
"""The name of the manifest of a data set that is not written to its end."""

MAX_MANIFEST_BYTES = 2**26
"""The most bytes of a manifest; longer ones are refused. That of ImageNet has half a million bytes."""

MAX_SHARD_IMAGES = 2**40


def _inside(name: str) -> str:
    """Gives the name of a file back if it is a path below the folder, and raises a ValueError otherwise."""
    if not name.isprintable() or "\\" in name or PurePosixPath(name).is_absolute():
        raise ValueError("a name that is no path below the folder")
    if any(part in ("", ".", "..") for part in name.split("/")):
        raise ValueError("a name that leads out of the folder")
    return name


def _image_size(sides: list[int]) -> list[int]:
    if min(sides) < 1 or sides[0] * sides[1] > MAX_PIXELS:
        raise ValueError(f"{sides[0]} x {sides[1]} pixels")
    return sides


def _different(classes: list[str]) -> list[str]:
    if len(set(classes)) < len(classes):
        raise ValueError("a class twice")
    return classes


@dataclass(frozen=True)
class FileRecord:
    """What a file must be: the number of its bytes, and their SHA-256 in hexadecimal."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    bytes: Annotated[StrictInt, Field(ge=0)]
    sha256: Annotated[StrictStr, Field(pattern="^[0-9a-f]{64}$")]

    def __str__(self) -> str:
        return f"{self.bytes} bytes with SHA-256 {self.sha256}"

    @classmethod
    def of(cls, path: Path) -> FileRecord:
        """Gives the record of a regular file as it is; raises an OSError if there is none."""
        with open_regular(path) as file:
            digest = hashlib.sha256()
            while part := file.read(2**20):
                digest.update(part)
            return cls(file.tell(), digest.hexdigest())


@dataclass
class Manifest:
    """The description of a prepared data set.

    Attributes:
        options: What the data set was prepared from and how; another run goes on only with the same options.
        image_size: The size [H, W] of the images in pixels.
        classes: The names of the classes.
        mean: The mean of each channel, in units of 0..255.
        std: The standard deviation of each channel, in units of 0..255.
        shards: The number of images in each shard, by split.
        files: The record of each file, by its path in the folder.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", allow_inf_nan=False)

    options: dict[str, Any]
    image_size: Annotated[list[StrictInt], Field(min_length=2, max_length=2), AfterValidator(_image_size)]
    classes: Annotated[list[StrictStr], Field(min_length=1), AfterValidator(_different)]
    mean: Annotated[list[StrictFloat], Field(min_length=3, max_length=3)]
    std: Annotated[list[Annotated[StrictFloat, Field(gt=0)]], Field(min_length=3, max_length=3)]
    shards: dict[Split, list[Annotated[StrictInt, Field(ge=0, le=MAX_SHARD_IMAGES)]]]
    files: dict[Annotated[str, AfterValidator(_inside)], FileRecord]

    def to_json(self) -> str:
        """Gives the text of manifest.json."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1) + "\n"

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Reads a manifest.

        Raises:
            UserError: If it is not there, damaged, or of another version.
        """
        try:
            with open_regular(path) as file:
                data = file.read(MAX_MANIFEST_BYTES + 1)
        except OSError as error:
            raise _no_manifest(path, one_line(error)) from error
        return cls.parse(data, path)

    @classmethod
    def parse(cls, data: bytes, name: str | Path) -> Manifest:
        """Parses the bytes of a manifest; raises a UserError that calls them `name` if they are none."""
        if len(data) > MAX_MANIFEST_BYTES:
            raise _no_manifest(name, f"more than {MAX_MANIFEST_BYTES} bytes")
        try:
            values = json.loads(data.decode("utf-8"))
            if not isinstance(values, dict) or "format" not in values:
                raise _no_manifest(name, "no format")
            if (found := values.pop("format")) != FORMAT:
                found = str(found)[:80]
                raise UserError(
                    f"{name}: found format {found!r}, expected {FORMAT!r}: prepare the data set anew"
                )
            manifest = _MANIFEST.validate_python(values)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(str(part) for part in first["loc"])[:80]
            raise _no_manifest(name, f"{place}: {first['msg']}") from error
        except (ValueError, RecursionError) as error:  # RecursionError: nested a million deep
            raise _no_manifest(name, one_line(error)) from error
        for split, counts in manifest.shards.items():
            for file in (file for number in range(len(counts)) for file in shard_files(split, number)):
                if file not in manifest.files:
                    raise _no_manifest(name, f"no record of {file}")
        return manifest


def _no_manifest(name: str | Path, reason: str) -> UserError:
    return UserError(
        f"{name}: found no readable manifest ({reason}), expected one that sysds_resnet.prepare wrote: "
        "prepare the data set anew"
    )


def shard_files(split: Split, number: int) -> tuple[str, str]:
    """Gives the names of the files with a shard's images and labels."""
    return f"{split}-{number:05d}-images.npy", f"{split}-{number:05d}-labels.npy"


_MANIFEST = TypeAdapter(Manifest)
