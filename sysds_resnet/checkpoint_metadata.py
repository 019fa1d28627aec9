"""What PyTorch checkpoints of other programs say beside the weights: class names, mean, std and sizes.

There is no standard for it. Known are torchvision's ``class_to_idx`` and the settings of its reference
scripts, Lightning's ``hyper_parameters``, and timm's ``pretrained_cfg`` and settings.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from typing import Any

from sysds_resnet.image_processors import from_pretrained_cfg
from sysds_resnet.weight_metadata import (
    check_metadata,
    is_number,
    names_by_number,
    numbers_by_name,
    shorten,
    tell_apart,
)
from sysds_resnet.weight_names import fail

# Entries of a checkpoint that may hold these things, beside the checkpoint itself.
_PLACES = ("hyper_parameters", "datamodule_hyper_parameters", "hparams", "meta", "args", "config")
_NAMES = ("classes", "class_names", "categories", "label_names")
_BY_NUMBER = ("idx_to_class", "id2label")
_BY_NAME = ("class_to_idx", "label2id")
FIELDS = frozenset({*_PLACES, *_NAMES, *_BY_NUMBER, *_BY_NAME, "mean", "std", "pretrained_cfg"})
"""Entries of a checkpoint that are no tensors of its network."""

_SIZES = {
    "image_size": ("image_size", "img_size", "val_crop_size"),
    "resize_size": ("resize_size", "val_resize_size"),
}


def metadata_of_checkpoint(entries: Mapping[Any, Any], source: str) -> tuple[dict[str, Any], list[str]]:
    """What is known of a checkpoint's network beside its tensors, checked, and notes.

    Raises:
        UserError: If a field is not what it should be, or two contradict each other.
    """
    found: dict[str, Any] = {}
    notes: list[str] = []
    for place, values in _places(entries):
        where = f"{source}, {place}" if place else source
        for names, field, said in _all_names(values, where):
            if found.setdefault("classes", names) != names:
                fail(where, f"{field} names other classes than another entry of the file; correct it")
            notes += [text for text in said if text not in notes]
        if isinstance(values.get("pretrained_cfg"), Mapping):
            described, said = from_pretrained_cfg(values["pretrained_cfg"], f"{where}, pretrained_cfg")
            found, notes = described | found, notes + said
        if "mean" not in found and values.get("mean") is not None and values.get("std") is not None:
            mean, std, said = _scaled(values["mean"], values["std"], where)
            found |= {"mean": mean, "std": std}
            notes += said
        for field, spellings in _SIZES.items():
            size = next((values[name] for name in spellings if is_number(values.get(name))), None)
            if size is not None:
                found.setdefault(field, size)
    if "image_size" not in found:
        found.pop("resize_size", None)
    return check_metadata(found, source), notes


def _places(entries: Mapping[Any, Any]) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    yield "", entries
    for name in _PLACES:
        values = entries.get(name)
        values = vars(values) if isinstance(values, argparse.Namespace) else values
        if isinstance(values, Mapping):
            yield name, values


def _all_names(values: Mapping[Any, Any], source: str) -> Iterator[tuple[list[str], str, list[str]]]:
    """Class names in each field that has them, the field, and notes."""
    for field in (*_NAMES, *_BY_NUMBER, *_BY_NAME):
        value = values.get(field)
        if isinstance(value, Mapping):
            # both directions are found under each of these names
            texts = all(isinstance(v, str) for v in value.values())
            names = (names_by_number if texts else numbers_by_name)(value, field, source)
        elif field in _NAMES and isinstance(value, list | tuple):  # otherwise often the number of classes
            wrong = next((name for name in value if not isinstance(name, str) or not name), None)
            if wrong is not None or not value:
                fail(source, f"{field} has {shorten(wrong)} in it, expected names of classes; correct it")
            names = list(value)
        else:
            continue
        unique, notes = tell_apart(names, field, source)
        yield unique, field, notes


def _scaled(mean: Any, std: Any, source: str) -> tuple[list[float], list[float], list[str]]:
    """Mean and std in 0..255, from these units or 0..1."""
    pair = []
    for name, values in (("mean", mean), ("std", std)):
        values = values.tolist() if hasattr(values, "tolist") else values
        values = list(values) if isinstance(values, tuple) else values
        if not isinstance(values, list) or not values or not all(map(is_number, values)):
            fail(
                source,
                f"{name} is {shorten(values)}, expected finite numbers, one for each channel; correct it",
            )
        pair.append(values)
    if max(map(abs, pair[0] + pair[1])) > 1:
        return *pair, []
    notes = [f"{source}: mean {shorten(pair[0])} and std {shorten(pair[1])} are taken to be in units of 0..1"]
    return *[[255.0 * value for value in values] for values in pair], notes
