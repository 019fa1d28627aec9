"""Other projects' descriptions of image preprocessing, converted to this project's terms and back.

Those terms are a mean and a standard deviation in 0..255, a shorter side that images are resized to by an
antialiased bilinear filter, and a square that is cropped from the centre. Notes tell what a description says
beyond them.

Sources: ``preprocessor_config.json`` as transformers' image processors read it (``ConvNextImageProcessor``,
which is ResNet's, ``BitImageProcessor``, ``ViTImageProcessor``), and timm's ``pretrained_cfg`` as
``timm.data.transforms_factory.transforms_imagenet_eval`` does.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field

from sysds_resnet.imagenet import DEFAULT_IMAGE_SIZE, IMAGENET_MEAN, IMAGENET_STD, default_resize_size
from sysds_resnet.network.names import fail
from sysds_resnet.network.weights.metadata import MAX_MEAN, MAX_STD, Side, Strict, shorten, validate

PREPROCESSOR_FILE = "preprocessor_config.json"

_BILINEAR = 2
_FILTERS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")  # by Pillow's numbers
_SQUASHED_FROM = 384  # pixels: from this size on, ConvNextImageProcessor does not crop
_CLIP_MEAN, _CLIP_STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
_CLIP = {
    "size": {"shortest_edge": 224},
    "crop_size": {"height": 224, "width": 224},
    "do_center_crop": True,
    "resample": 3,
    "image_mean": _CLIP_MEAN,
    "image_std": _CLIP_STD,
}
# The defaults of transformers' classes for fields that a file leaves out.
_DEFAULTS: dict[str, dict[str, Any]] = {
    "ConvNext": {
        "size": {"shortest_edge": 384},
        "crop_pct": 224 / 256,
        "resample": 3,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    },
    "Bit": _CLIP,
    "CLIP": _CLIP,
    "ViT": {
        "size": {"height": 224, "width": 224},
        "resample": _BILINEAR,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    },
}

_Numbers = Annotated[list[float], Field(min_length=1)] | float
_Size = Side | dict[str, Side | None] | Annotated[list[Side], Field(min_length=2, max_length=2)]


# Steps that a file may ask for beside the fields of _Processor: the first change nothing that a network sees;
# the second change all of it, and are refused. Any other step gives a note.
_HARMLESS = ("do_convert_rgb", "do_reduce_labels")
_OTHER_PIXELS = ("do_flip_channel_order", "do_grayscale", "rescale_offset")


class _Processor(Strict):
    """The fields of preprocessor_config.json that decide what a network sees."""

    image_processor_type: str | None = None
    feature_extractor_type: str | None = None
    do_resize: bool = True
    size: _Size | None = None
    crop_pct: Annotated[float, Field(gt=0, le=1)] | None = None
    resample: Annotated[int, Field(ge=0, le=5)] | None = None
    do_center_crop: bool = False
    crop_size: _Size | None = None
    do_rescale: bool = True
    rescale_factor: Annotated[float, Field(gt=0)] = 1 / 255
    do_normalize: bool = True
    image_mean: _Numbers | None = None
    image_std: _Numbers | None = None


class _Pretrained(Strict):
    """The fields of timm's pretrained_cfg that decide what a network sees."""

    mean: Annotated[list[float], Field(min_length=1)] | None = None
    std: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1)] | None = None
    input_size: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=3, max_length=3)] | None = None
    crop_pct: Annotated[float, Field(gt=0, le=1)] | None = None
    crop_mode: str | None = None
    interpolation: str | None = None


def from_processor(config: Mapping[str, Any], channels: int, source: str) -> tuple[dict[str, Any], list[str]]:
    """Reads mean, std and sizes from a preprocessor_config.json; notes say what cannot be followed exactly.

    Raises:
        UserError: If a field is not what it should be.
    """
    given = {name: value for name, value in config.items() if value is not None}
    named = validate(_Processor, given, source)
    full_name = named.image_processor_type or named.feature_extractor_type or "ConvNextImageProcessor"
    kind = re.sub(r"(ImageProcessor|FeatureExtractor)(Fast|Pil)?$", "", full_name)
    if kind not in _DEFAULTS:
        needed = [name for name in ("size", "image_mean", "image_std") if name not in given]
        if needed:
            fail(
                source, f"{needed[0]} is missing and {full_name}'s default not known here; add it to the file"
            )
    if other := next((name for name in _OTHER_PIXELS if given.get(name)), None):
        fail(source, f"{other} is {shorten(given[other])}, expected false; give a model for RGB images")
    processor = validate(_Processor, {**_DEFAULTS.get(kind, {"resample": _BILINEAR}), **given}, source)
    scale = (1 / processor.rescale_factor) if processor.do_rescale else 1.0
    scale = 255.0 if math.isclose(scale, 255, rel_tol=1e-9) else scale  # 1/255 was rounded in the file
    if processor.do_normalize:
        mean = [scale * value for value in _each("image_mean", processor.image_mean, channels, source)]
        std = [scale * value for value in _each("image_std", processor.image_std, channels, source)]
        if max(map(abs, mean)) > MAX_MEAN or max(std) > MAX_STD:
            text = (
                f"image_mean is {shorten(processor.image_mean)} and image_std {shorten(processor.image_std)}"
            )
            fail(
                source,
                f"{text}, expected numbers for pixels of 0..{255 / scale:g}; correct them or do_rescale",
            )
    else:
        mean, std = [0.0] * channels, [scale] * channels
    sizes, notes = _sizes(processor, kind, source)
    known = (*_Processor.model_fields, *_HARMLESS)
    more = [n for n, value in given.items() if n.startswith("do_") and value is not False and n not in known]
    notes += [f"{source}: {name} is {shorten(given[name])}, which is not done here" for name in more]
    if processor.do_resize and processor.resample not in (None, _BILINEAR):
        notes.append(_other_filter(source, f"resample {processor.resample}", _FILTERS[processor.resample]))
    return {"mean": mean, "std": std, **sizes}, notes


def from_pretrained_cfg(config: object, source: str) -> tuple[dict[str, Any], list[str]]:
    """Reads mean, std and sizes from timm's pretrained_cfg; notes say what cannot be followed exactly."""
    given = (
        {n: list(v) if isinstance(v, tuple) else v for n, v in config.items() if v is not None}
        if isinstance(config, Mapping)
        else config
    )
    known = validate(_Pretrained, given, source)
    found: dict[str, Any] = {}
    notes = []
    if known.mean is not None:
        found["mean"] = [255.0 * value for value in known.mean]
    if known.std is not None:
        found["std"] = [255.0 * value for value in known.std]
    if known.input_size is not None:
        height, width = known.input_size[1:]
        if height == width:
            share = known.crop_pct or 0.875  # timm's default
            found |= {"image_size": [height, width], "resize_size": math.floor(height / share)}
        else:
            notes.append(not_square(source, "input_size", height, width))
    if known.crop_mode not in (None, "center"):
        notes.append(
            f"{source}: crop_mode is {known.crop_mode!r}; here images keep their aspect and their centre"
        )
    if known.interpolation not in (None, "bilinear"):
        notes.append(_other_filter(source, "interpolation", known.interpolation))
    return found, notes


def to_processor(metadata: Mapping[str, Any], channels: int) -> dict[str, Any]:
    """Gives the preprocessor_config.json for the metadata of weights, with defaults for missing fields.

    For the centre crop, transformers rounds half of the margin down, where torchvision and this project round
    halves to the nearest even number: with an odd margin, the two crops may differ by one pixel.
    """
    imagenet = channels == len(IMAGENET_MEAN)
    mean = metadata.get("mean") or (IMAGENET_MEAN.tolist() if imagenet else [0.0] * channels)
    std = metadata.get("std") or (IMAGENET_STD.tolist() if imagenet else [1.0] * channels)
    height, width = metadata.get("image_size") or [DEFAULT_IMAGE_SIZE] * 2
    return {
        "image_processor_type": "BitImageProcessor",
        "do_convert_rgb": channels == 3,
        "do_resize": True,
        "size": {"shortest_edge": metadata.get("resize_size") or default_resize_size(height)},
        "resample": _BILINEAR,
        "do_center_crop": True,
        "crop_size": {"height": height, "width": width},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [value / 255 for value in mean],
        "image_std": [value / 255 for value in std],
    }


def _sizes(processor: _Processor, kind: str, source: str) -> tuple[dict[str, Any], list[str]]:
    """Gives the sizes of images, and notes on what cannot be followed."""
    if not processor.do_resize:
        return {}, [f"{source}: do_resize is false; here images are resized and cropped all the same"]
    size = processor.size
    if isinstance(size, int) and kind in ("ConvNext", "Bit", "CLIP"):
        size = {"shortest_edge": size}
    shorter = size.get("shortest_edge") if isinstance(size, dict) else None
    if shorter is not None:
        if kind == "ConvNext":
            if shorter < _SQUASHED_FROM:
                return {"image_size": [shorter] * 2, "resize_size": int(shorter / processor.crop_pct)}, []
            return _squashed(source, shorter, shorter)
        if not processor.do_center_crop:
            note = f"{source}: do_center_crop is false; here the centre of an image is cropped all the same"
            return {"image_size": [shorter] * 2, "resize_size": shorter}, [note]
        height, width = _pair("crop_size", processor.crop_size, source)
        if height != width:
            return {}, [not_square(source, "crop_size", height, width)]
        return {"image_size": [height, width], "resize_size": shorter}, []
    height, width = _pair("size", size, source)
    crop = _pair("crop_size", processor.crop_size, source) if processor.do_center_crop else (height, width)
    if height != width or crop[0] != crop[1]:
        return {}, [not_square(source, "size", height, width)]
    return _squashed(source, height, crop[0])


def _squashed(source: str, resized: int, side: int) -> tuple[dict[str, Any], list[str]]:
    note = (
        f"{source}: images are squashed to {resized} x {resized} there; here they are resized and "
        "cropped, so that they keep their aspect"
    )
    return {"image_size": [side] * 2, "resize_size": resized}, [note]


def _pair(name: str, size: Any, source: str) -> tuple[int, int]:
    """Gives the height and width of a size in any of its forms."""
    if isinstance(size, int):
        return size, size
    if isinstance(size, list):
        return size[0], size[1]
    if isinstance(size, dict) and size.get("height") and size.get("width"):
        return size["height"], size["width"]
    fail(source, f"{name} is {shorten(size)}, expected a shortest_edge, or a height and a width; correct it")


def _each(name: str, values: Sequence[float] | float, channels: int, source: str) -> list[float]:
    """Gives one number for each channel."""
    found = [values] * channels if isinstance(values, int | float) else list(values)
    if len(found) != channels:
        if len(set(found)) == 1:  # equal numbers for three channels, as the defaults are
            return found[:1] * channels
        fail(
            source,
            f"{name} has {len(found)} values, expected {channels}, one for each of the channels; correct it",
        )
    if name == "image_std" and min(found) <= 0:
        fail(source, f"{name} is {shorten(values)}, expected numbers above 0; correct it")
    return found


def _other_filter(source: str, field: str, name: str) -> str:
    return f"{source}: {field} is {name}; here images are resized by the bilinear filter"


def not_square(source: str, field: str, height: int, width: int) -> str:
    """Gives the note on a size that is not square."""
    return (
        f"{source}: {field} is {height} x {width}, and images are square here: it is not followed; give "
        "--image-size"
    )
