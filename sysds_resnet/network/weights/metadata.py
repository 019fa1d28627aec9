"""The metadata of weights: class names, mean and standard deviation of pixels, sizes of images.

It comes from files that others may have written, so all of it is checked here, whatever file it comes from.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from sysds_resnet.errors import UserError
from sysds_resnet.network.names import fail

METADATA_KEY = "sysds_resnet"
"""The name of this project's entry in the header of a safetensors file."""

MAX_JSON = 16 * 2**20  # bytes; the names of 21,841 classes take 1 MB
MAX_SIDE = 8192  # pixels
MAX_MEAN, MAX_STD = 1000, 1e5  # larger values cannot be those of pixels from 0 to 255

Side = Annotated[int, Field(ge=32, le=MAX_SIDE)]


class Strict(BaseModel):
    """The base class of what is read from JSON: no conversions, no NaN, unknown fields kept."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False, frozen=True)


class Metadata(Strict):
    """The metadata of weights. Each field may be missing; unknown fields are kept as they are.

    Attributes:
        mean: The mean of each channel, in 0..255.
        std: The standard deviation of each channel, in 0..255.
        classes: The names of the classes, all different.
        image_size: The height and width of the images in pixels.
        resize_size: The shorter side of the images before the centre crop, in pixels.
    """

    mean: list[Annotated[float, Field(ge=-MAX_MEAN, le=MAX_MEAN)]] | None = Field(None, min_length=1)
    std: list[Annotated[float, Field(ge=1e-3, le=MAX_STD)]] | None = Field(None, min_length=1)
    classes: list[Annotated[str, Field(min_length=1)]] | None = None
    image_size: list[Side] | None = None
    resize_size: Side | None = None

    @field_validator("image_size", mode="before")
    @classmethod
    def _square(cls, value: Any) -> Any:
        """Takes a single number for the side of a square."""
        if isinstance(value, list | tuple) and len(value) != 2:
            raise ValueError(f"a height and a width (found {shorten(value)})")
        return [value, value] if type(value) is int else value

    @field_validator("classes")
    @classmethod
    def _unique(cls, names: list[str] | None) -> list[str] | None:
        if names is not None and not names:
            raise ValueError("a name for each class (found none)")
        if twice := duplicate(names or []):
            raise ValueError(f"each name once (found {shorten(twice)} twice)")
        return names

    @model_validator(mode="after")
    def _together(self) -> Metadata:
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std together")
        if self.mean is not None and len(self.mean) != len(self.std):
            raise ValueError(f"as many means as stds (found {len(self.mean)} and {len(self.std)})")
        return self


def check_metadata(values: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Checks the fields that `Metadata` has, and gives those that are set, and unknown ones, as a dict.

    Raises:
        UserError: If a field is wrong; it names the source, the field, and what was found and expected.
    """
    return validate(Metadata, values, source).model_dump(exclude_unset=True)


def check_fits(
    metadata: Mapping[str, Any], channels: int | None, num_classes: int | None, source: str
) -> None:
    """Refuses metadata for other numbers of channels or classes than these; None is for an unknown number."""
    for name, expected, what in (("classes", num_classes, "classes"), ("mean", channels, "channels")):
        values = metadata.get(name)
        if values and expected is not None and len(values) != expected:
            expectation = f"expected {expected}, one for each of the {what}"
            fail(source, f"{name} has {len(values)} values, {expectation}; correct it, or remove it")


def validate(model: type[Strict], values: object, source: str) -> Any:
    """Makes an instance of a pydantic model from a JSON object.

    Raises:
        UserError: If a field does not fit; it names the first one.
    """
    if not isinstance(values, Mapping):
        fail(source, f"holds {shorten(values)}, expected a JSON object; write it again")
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        errors = error.errors()
        # a field of several possible forms has an error for each: the deepest is of the form it nearly has
        alike = [e for e in errors if e["loc"][:1] == errors[0]["loc"][:1]]
        first = max(alike, key=lambda e: len(e["loc"]))
        name, *places = first["loc"] or ("metadata",)
        where = str(name) + "".join(f"[{p}]" for p in places if isinstance(p, int))
        expected = first["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
        found = "" if first["type"] == "value_error" else f"is {shorten(first['input'])}, "
        fail(source, f"{where} {found}expected {expected}; correct it, or remove it from the file")


def parse_json(text: bytes | str, source: str) -> dict[str, Any]:
    """Parses a JSON object.

    Raises:
        UserError: If the text is no JSON object, or is larger or more deeply nested than metadata can be.
    """
    if len(text) > MAX_JSON:
        fail(source, f"holds {len(text)} bytes of JSON, expected at most {MAX_JSON}; give another file")
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:  # bad encodings are ValueErrors too
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        fail(source, f"cannot be read ({reason}), expected a JSON object; copy or download it again")
    if not isinstance(values, dict):
        fail(source, f"cannot be read (it is {shorten(values)}), expected a JSON object; write it again")
    return values


def read_json(path: Path) -> dict[str, Any] | None:
    """Reads the JSON object in a file; gives None if there is no such file.

    Raises:
        UserError: If the file cannot be read, or `parse_json` refuses its text.
    """
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file:
            return parse_json(file.read(MAX_JSON + 1), str(path))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error


def encode_header(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Gives the safetensors header that `decode_header` reads; it is empty without metadata."""
    return {METADATA_KEY: json.dumps(metadata)} if metadata else {}


def decode_header(header: Mapping[str, str], source: str) -> dict[str, Any]:
    """Gives the checked metadata in a safetensors header; it is empty if there is none."""
    if METADATA_KEY not in header:
        return {}
    source = f"{source}, metadata {METADATA_KEY}"
    return check_metadata(parse_json(header[METADATA_KEY], source), source)


def names_by_number(table: object, field: str, source: str) -> list[str]:
    """Gives the class names in a table from numbers to names, such as the JSON `{"0": "cat", "1": "dog"}`.

    Raises:
        UserError: If the numbers are not 0 to n - 1, or a name is no text.
    """
    if not isinstance(table, Mapping):
        fail(source, f"{field} is {shorten(table)}, expected a mapping of numbers to names; correct it")
    names: dict[int, str] = {}
    for key, name in table.items():
        if type(key) is not int and not (isinstance(key, str) and key.isdecimal() and key.isascii()):
            fail(source, f"{field} has the key {shorten(key)}, expected class numbers from 0; correct it")
        if not isinstance(name, str) or not name:
            fail(source, f"{field}[{shorten(key)}] is {shorten(name)}, expected a name; correct it")
        names[int(key)] = name
    missing = next((i for i in range(len(table)) if i not in names), None)
    if missing is not None:
        fail(source, f"{field} has no class {missing}, expected 0 to {len(table) - 1}, each once; correct it")
    return [names[i] for i in range(len(names))]


def numbers_by_name(table: object, field: str, source: str) -> list[str]:
    """Gives the class names in a table from names to numbers, such as torchvision's `class_to_idx`."""
    if not isinstance(table, Mapping):
        fail(source, f"{field} is {shorten(table)}, expected a mapping of names to numbers; correct it")
    if len(set(map(str, table.values()))) < len(table):
        number = duplicate(list(map(str, table.values())))
        fail(source, f"{field} gives the number {shorten(number)} to two names, expected one; correct it")
    return names_by_number({number: name for name, number in table.items()}, field, source)


def tell_apart(names: Sequence[str], field: str, source: str) -> tuple[list[str], list[str]]:
    """Makes class names unique, and gives a note if that takes a change.

    Published lists have some names twice: ImageNet's "crane" is a bird and a machine. The class number is
    appended to such a name.
    """
    if not (twice := duplicate(names)):
        return list(names), []
    counts = {name: 0 for name in names}
    for name in names:
        counts[name] += 1
    unique = [name if counts[name] == 1 else f"{name} ({i})" for i, name in enumerate(names)]
    same = [i for i, name in enumerate(names) if name == twice]
    text = f"{source}: {field} calls classes {same[0]} and {same[1]} {twice!r}"
    return unique, [f"{text}; here they are {unique[same[0]]!r} and {unique[same[1]]!r}"]


def duplicate(names: Sequence[str]) -> str | None:
    """Gives the first name that occurs twice, or None."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def is_number(value: object) -> bool:
    """Tells whether a value is a finite number, and no bool."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def shorten(value: object) -> str:
    """Describes a value for a message, in at most 60 characters."""
    try:
        text = repr(value) if not isinstance(value, list | dict) or len(value) < 100 else type(value).__name__
    except RecursionError:
        text = f"a {type(value).__name__} that is nested too deeply"
    return text if len(text) <= 60 else f"{text[:57]}..."
