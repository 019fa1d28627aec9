"""Hugging Face folders: config.json and preprocessor_config.json beside the weights, read and written.

Two kinds of folders are read: those of transformers' ``ResNetForImageClassification``, and those of timm's
models, whose config.json has an ``architecture`` and a ``pretrained_cfg``. Any other folder of weights with
torchvision's names may have class names and a processor in the same files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sysds_resnet.network.names import STAGES, Architecture, fail, stage_channels
from sysds_resnet.network.weights.image_processors import (
    PREPROCESSOR_FILE,
    from_pretrained_cfg,
    from_processor,
    to_processor,
)
from sysds_resnet.network.weights.metadata import (
    check_metadata,
    is_number,
    names_by_number,
    numbers_by_name,
    read_json,
    shorten,
    tell_apart,
)

CONFIG_FILE = "config.json"
# Fields of Hugging Face's config.json that every ResNet v1.5 has, and that its tensors' names do not show.
_PLAIN = {"hidden_act": "relu", "downsample_in_first_stage": False, "downsample_in_bottleneck": False}
_TIMM_PLAIN = re.compile(r"((tv|gluon|ssl|swsl)_)?resnet(18|34|50|101|152)(_v1b)?(\..*)?")
_TIMM_HARMLESS = {
    "num_classes",
    "in_chans",
    "drop_rate",
    "drop_path_rate",
    "drop_block_rate",
    "zero_init_last",
}


def read_folder(
    folder: Path, channels: int, num_classes: int | None, renamed: bool
) -> tuple[dict[str, Any], list[str]]:
    """Reads and checks what a folder's JSON files say of its network; notes say what cannot be followed.

    Args:
        folder: The folder with config.json.
        channels: The number of channels of the network's input.
        num_classes: The number of its classes; None for a backbone.
        renamed: Whether the tensors have the names of transformers' ResNet.

    Raises:
        UserError: If a file is damaged, a field is not what it should be, or the network computes something
            else than ResNet v1.5.
    """
    path = folder / CONFIG_FILE
    config = read_json(path) or {}
    of_timm = "architecture" in config or "pretrained_cfg" in config
    if of_timm:
        found, notes = _read_timm(config, num_classes, str(path))
    else:
        _check_plain(config, renamed, str(path))
        names, notes = _names(config, num_classes, str(path))
        found = {} if names is None else {"classes": names}
    path, processor = _find_processor(folder)
    if processor is None:
        if "model_type" in config and not of_timm:
            notes.append(
                f"{path}: is missing; images are preprocessed for ImageNet at 224 unless flags say otherwise"
            )
        return found, notes
    described, said = from_processor(processor, channels, str(path))
    described = check_metadata(described, str(path))
    differing = [name for name in described if name in found and not _close(described[name], found[name])]
    if differing:  # in a timm folder, whose config.json has these fields too
        notes.append(
            f"{path}: {differing[0]} is {shorten(described[differing[0]])} by it, but "
            f"{shorten(found[differing[0]])} by {CONFIG_FILE}, which is followed"
        )
    return described | found, notes + (said if not of_timm else [])


def folder_files(
    weights: Mapping[str, np.ndarray], architecture: Architecture, metadata: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Gives the content of the JSON files of a folder for transformers, by file name."""
    kind, counts = STAGES[architecture.depth]
    labels = metadata.get("classes") or [f"LABEL_{i}" for i in range(architecture.num_classes)]
    config = _PLAIN | {
        "architectures": ["ResNetForImageClassification"],
        "model_type": "resnet",
        "layer_type": kind,
        "depths": counts,
        "hidden_sizes": stage_channels(kind),
        "embedding_size": stage_channels("basic")[0],
        "num_channels": architecture.channels,
        "id2label": {str(i): label for i, label in enumerate(labels)},
        "label2id": {label: i for i, label in enumerate(labels)},
        "torch_dtype": np.asarray(weights["conv1.weight"]).dtype.name,
    }
    return {CONFIG_FILE: config, PREPROCESSOR_FILE: to_processor(metadata, architecture.channels)}


def agrees(metadata: Mapping[str, Any], found: Mapping[str, Any], channels: int) -> bool:
    """Tells whether a folder's JSON files say the same as the header of its weights, up to rounding.

    They do if nobody changed them since this project wrote the folder. The header then has the exact numbers.
    """
    expected = from_processor(to_processor(metadata, channels), channels, "")[0]
    expected |= {"classes": metadata["classes"]} if metadata.get("classes") else {}
    if expected.keys() != found.keys():
        return False
    return all(_close(expected[name], found[name]) for name in expected)


def _close(one: Any, other: Any) -> bool:
    """Tells whether two values of a field are the same, numbers up to rounding."""
    numbers = [isinstance(value, list) and all(map(is_number, value)) for value in (one, other)]
    return np.allclose(one, other, rtol=1e-9) if all(numbers) and len(one) == len(other) else one == other


def _find_processor(folder: Path) -> tuple[Path, dict[str, Any] | None]:
    """Finds the file that describes the image processor, and gives its path and the description."""
    path = folder / "processor_config.json"  # newer versions of transformers may put it there
    nested = (read_json(path) or {}).get("image_processor")
    if isinstance(nested, dict):
        return path, nested
    path = folder / PREPROCESSOR_FILE
    return path, read_json(path)


def _check_plain(config: Mapping[str, Any], renamed: bool, source: str) -> None:
    """Refuses a network whose strides, activation or outputs are not those of v1.5: its tensors do not tell.

    Only tensors with Hugging Face's names need the model_type "resnet": with torchvision's names, they may be
    those of anybody's model, which has a model_type of its own.
    """
    for key, expected in (_PLAIN | ({"model_type": "resnet"} if renamed else {})).items():
        if (found := config.get(key, expected)) != expected:
            fail(
                source,
                f"{key} is {shorten(found)}, expected {expected!r} as in ResNet v1.5; give another model",
            )
    if config.get("problem_type") == "multi_label_classification":
        fail(
            source,
            "problem_type is multi_label_classification, expected one class for an image; give another model",
        )


def _names(
    config: Mapping[str, Any], num_classes: int | None, source: str
) -> tuple[list[str] | None, list[str]]:
    """Gives the class names, unless they are placeholders, and notes."""
    if config.get("id2label") is not None:
        field, names = "id2label", names_by_number(config["id2label"], "id2label", source)
    elif config.get("label2id") is not None:
        field, names = "label2id", numbers_by_name(config["label2id"], "label2id", source)
    else:
        return None, []
    if names == [f"LABEL_{i}" for i in range(len(names))]:  # transformers writes these if it has no names
        return None, []
    _check_count(names, num_classes, field, source)
    unique, notes = tell_apart(names, field, source)
    return unique, notes + _check_inverse(names, config.get("label2id"), source)


def _check_inverse(names: list[str], label2id: object, source: str) -> list[str]:
    """Refuses a label2id that gives a name another number than id2label; other names give a note."""
    if not isinstance(label2id, Mapping):
        return []
    for name, number in label2id.items():
        places = [str(i) for i, other in enumerate(names) if other == name]
        if places and str(number) not in places:
            found = f"label2id[{shorten(name)}] is {shorten(number)}"
            fail(source, f"{found}, expected {places[0]} as in id2label; correct it")
    other = next((name for name in label2id if name not in names), None)
    text = f"{source}: label2id has {shorten(other)}, which id2label does not have; id2label is followed"
    return [] if other is None else [text]


def _check_count(names: list[str], num_classes: int | None, field: str, source: str) -> None:
    if num_classes is not None and len(names) != num_classes:
        fail(
            source, f"{field} has {len(names)} classes, expected {num_classes} as the final layer; correct it"
        )


def _read_timm(
    config: Mapping[str, Any], num_classes: int | None, source: str
) -> tuple[dict[str, Any], list[str]]:
    architecture = config.get("architecture", "resnet50")
    if not isinstance(architecture, str) or not _TIMM_PLAIN.fullmatch(architecture):
        fail(
            source,
            f"architecture is {shorten(architecture)}, expected a plain ResNet as 'resnet50'; give another",
        )
    if config.get("global_pool", "avg") != "avg":
        fail(
            source,
            f"global_pool is {shorten(config['global_pool'])}, expected 'avg'; give another model",
        )
    arguments = config.get("model_args") or {}
    if not isinstance(arguments, Mapping) or (other := sorted(set(arguments) - _TIMM_HARMLESS)):
        found = shorten(arguments) if not isinstance(arguments, Mapping) else shorten(other[0])
        fail(source, f"model_args has {found}, expected none that change the network; give another model")
    pretrained = config.get("pretrained_cfg") or {}
    found, notes = from_pretrained_cfg(pretrained, f"{source}, pretrained_cfg")
    found = check_metadata(found, f"{source}, pretrained_cfg")
    names = config.get("label_names") or pretrained.get("label_names")
    if names is None:
        classes, said = _names(config, num_classes, source)
    else:
        table = dict(enumerate(names)) if isinstance(names, list) else names
        classes = names_by_number(table, "label_names", source)
        _check_count(classes, num_classes, "label_names", source)
        classes, said = tell_apart(classes, "label_names", source)
    return found | ({"classes": classes} if classes else {}), notes + said
