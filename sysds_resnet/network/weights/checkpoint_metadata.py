"""The metadata in PyTorch checkpoints of other programs: class names, mean, std and sizes.

There is no standard for it. Understood are torchvision's ``class_to_idx`` and the settings of its reference
scripts, Lightning's ``hyper_parameters``, and timm's ``pretrained_cfg`` and settings.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from sysds_resnet.errors import UserError
from sysds_resnet.network.names import fail
from sysds_resnet.network.weights.image_processors import from_pretrained_cfg, not_square
from sysds_resnet.network.weights.metadata import (
    check_fits,
    check_metadata,
    is_number,
    names_by_number,
    numbers_by_name,
    shorten,
    tell_apart,
)

# Entries of a checkpoint that may hold metadata, as the checkpoint itself may: first those that describe the
# network, then the settings of programs, where the same names may mean anything.
_PLACES = ("meta", "meta.dataset_meta")
_SETTINGS = ("hyper_parameters", "datamodule_hyper_parameters", "hparams", "args", "config")
_NAMES = ("classes", "class_names", "categories", "label_names", "CLASSES")
_BY_NUMBER = ("idx_to_class", "id2label")
_BY_NAME = ("class_to_idx", "label2id")
_SIDES = ("image_size", "img_size", "val_crop_size")
_SHORTER_SIDES = ("resize_size", "val_resize_size")
_OTHERS = ("meta", "mean", "std", "pretrained_cfg")
FIELDS = frozenset((*_OTHERS, *_SETTINGS, *_NAMES, *_BY_NUMBER, *_BY_NAME, *_SIDES, *_SHORTER_SIDES))
"""The entries of a checkpoint that are no tensors of its network."""

# Names of networks whose tensors have a ResNet's names and shapes, but that compute something else.
_VARIANT = re.compile(r"resnet(blur|aa|rs|v2)|resnet\d+(_?v1)?[cdest](?![a-z0-9])|resne[sx]t", re.IGNORECASE)
_AVERAGE_POOLS = ("avg", "fast", "fastavg", "")  # timm's names of the average over all pixels


def metadata_of_checkpoint(
    entries: Mapping[Any, Any], channels: int, num_classes: int | None, source: str
) -> tuple[dict[str, Any], list[str]]:
    """Reads and checks what a checkpoint says of its network beside the tensors, and gives it with notes.

    Args:
        entries: The content of the file.
        channels: The number of channels of the network's input.
        num_classes: The number of its classes; None for a backbone.
        source: What errors call the file.

    Raises:
        UserError: If a field is not what it should be, two contradict each other, or the network is said to
            be another one than its tensors show. Settings of a program that cannot be used only give a note.
    """
    found: dict[str, Any] = {}
    notes: list[str] = []
    for place, values in _places(entries):
        where = f"{source}, {place}" if place else source
        _check_variant(values, where)
        for read in (_classes, _pretrained, _statistics, _sizes):
            try:
                part, said = read(values, channels, where)
                part = check_metadata(part, where)
                check_fits(part, channels, num_classes, where)
            except UserError as error:
                if place not in _SETTINGS:
                    raise
                part, said = {}, [f"{str(error).rpartition('; ')[0]}; it is not used"]
            names = part.get("classes")
            if found.get("classes", names) != names and names:
                fail(where, "it names other classes than another entry of the file; correct it")
            if "image_size" in found:
                part = {
                    name: value for name, value in part.items() if name not in ("image_size", "resize_size")
                }
            found = part | found
            notes += [text for text in said if text not in notes]
    if "image_size" not in found:
        found.pop("resize_size", None)
    return check_metadata(found, source), notes


def _places(entries: Mapping[Any, Any]) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    yield "", entries
    for place in (*_PLACES, *_SETTINGS):
        values: Any = entries
        for name in place.split("."):
            values = values.get(name) if isinstance(values, Mapping) else None
        values = vars(values) if isinstance(values, argparse.Namespace) else values
        if isinstance(values, Mapping):
            yield place, values


def _check_variant(values: Mapping[Any, Any], source: str) -> None:
    """Refuses a network that is declared to be no ResNet v1.5, which its tensors would not show."""
    for field in ("arch", "model", "architecture"):
        found = values.get(field)
        if isinstance(found, str) and _VARIANT.search(found):
            fail(source, f"{field} is {shorten(found)}, expected a plain ResNet as 'resnet50'; give another")
    pool = values.get("gp")
    if isinstance(pool, str) and pool not in _AVERAGE_POOLS:
        fail(source, f"gp is {shorten(pool)}, expected 'avg', the average of all pixels; give another model")
    epsilon = values.get("bn_eps")
    if is_number(epsilon) and not math.isclose(epsilon, 1e-5):
        fail(source, f"bn_eps is {shorten(epsilon)}, expected 1e-05 as in ResNet v1.5; give another model")


def _classes(values: Mapping[Any, Any], _: int, source: str) -> tuple[dict[str, Any], list[str]]:
    """Reads the class names, on which all fields of one place must agree."""
    found: list[str] | None = None
    notes: list[str] = []
    for names, field, said in _all_names(values, source):
        if found not in (None, names):
            fail(source, f"{field} names other classes than another entry of the file; correct it")
        found, notes = names, notes + said
    return {} if found is None else {"classes": found}, notes


def _pretrained(values: Mapping[Any, Any], _: int, source: str) -> tuple[dict[str, Any], list[str]]:
    config = values.get("pretrained_cfg")
    if not isinstance(config, Mapping):
        return {}, []
    return from_pretrained_cfg(config, f"{source}, pretrained_cfg")


def _all_names(values: Mapping[Any, Any], source: str) -> Iterator[tuple[list[str], str, list[str]]]:
    """Gives, for each field with class names, the names, the field and notes."""
    for field in (*_NAMES, *_BY_NUMBER, *_BY_NAME):
        value = values.get(field)
        if isinstance(value, Mapping):
            # programs write tables of either direction under each of these names
            texts = all(isinstance(v, str) for v in value.values())
            names = (names_by_number if texts else numbers_by_name)(value, field, source)
        elif field in _NAMES and isinstance(value, list | tuple):
            # only lists: another value is often the number of classes
            wrong = [name for name in value if not isinstance(name, str) or not name]
            if wrong or not value:
                what = f"has {shorten(wrong[0])} in it" if wrong else f"is {shorten(value)}"
                fail(source, f"{field} {what}, expected names of classes; correct it")
            names = list(value)
        else:
            continue
        unique, notes = tell_apart(names, field, source)
        yield unique, field, notes


def _statistics(values: Mapping[Any, Any], channels: int, source: str) -> tuple[dict[str, Any], list[str]]:
    """Reads mean and std, which may be in units of 0..1 or 0..255, and gives them in 0..255."""
    if values.get("mean") is None or values.get("std") is None:
        return {}, []
    pair = []
    for name in ("mean", "std"):
        numbers = plain(values[name])
        numbers = [numbers] * channels if is_number(numbers) else numbers
        if not isinstance(numbers, list) or not numbers or not all(map(is_number, numbers)):
            fail(
                source,
                f"{name} is {shorten(numbers)}, expected finite numbers, one for each channel; correct it",
            )
        pair.append(numbers)
    mean, std = pair
    if max(map(abs, mean + std)) > 1:
        return {"mean": mean, "std": std}, []
    notes = [f"{source}: mean {shorten(mean)} and std {shorten(std)} are taken to be in units of 0..1"]
    return {name: [255.0 * v for v in numbers] for name, numbers in (("mean", mean), ("std", std))}, notes


def _sizes(values: Mapping[Any, Any], channels: int, source: str) -> tuple[dict[str, Any], list[str]]:
    """Reads the sizes of images from one number, from a height and a width, or from timm's settings."""
    field, size = _first(values, _SIDES)
    shape = plain(values.get("input_size"))
    # an input_size that does not begin with the channels may be the size of anything
    if size is None and isinstance(shape, list) and shape[:1] == [channels]:
        field, size = "input_size", shape[1:]
    _, shorter = _first(values, _SHORTER_SIDES)
    timm = {name: values[name] for name in ("crop_pct", "interpolation") if values.get(name)}
    found, notes = from_pretrained_cfg(timm, source)
    if isinstance(size, list) and len(size) == 2 and size[0] != size[1]:
        return {}, [*notes, not_square(source, field, *size)]
    if size is not None:
        found = check_metadata({"image_size": size}, source)
        if field == "input_size" or "crop_pct" in timm:
            found, _ = from_pretrained_cfg({**timm, "input_size": [channels, *found["image_size"]]}, source)
    return found | ({} if shorter is None else {"resize_size": shorter}), notes


def _first(values: Mapping[Any, Any], fields: tuple[str, ...]) -> tuple[str, Any]:
    """Gives the first field that has a value, and the value, as an int if it is a whole number."""
    field = next((field for field in fields if values.get(field) is not None), fields[0])
    value = plain(values.get(field))
    if isinstance(value, str) and value.isdecimal() and len(value) < 9:
        value = int(value)
    return field, int(value) if isinstance(value, float) and value.is_integer() else value


def plain(values: Any) -> Any:
    """Turns tuples, arrays and tensors into lists and numbers; a shape such as (1, C, 1, 1) becomes flat."""
    if hasattr(values, "reshape"):
        several = [side for side in values.shape if side != 1]
        flat = len(several) <= 1 and len(values.shape) > 1
        return (values.reshape(-1) if flat else values).tolist()
    return list(values) if isinstance(values, tuple) else values
