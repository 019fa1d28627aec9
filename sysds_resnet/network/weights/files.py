"""Files of weights, read and written as ``{name: array}`` dictionaries with torchvision's names.

That is the exchange format of this project: state-dict names such as ``layer1.0.bn1.running_var``, filters of
shape (F, C, K, K), ``fc.weight`` of shape (classes, features). Nothing here knows the engine.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from sysds_resnet.errors import UserError
from sysds_resnet.network.names import (
    Weights,
    fail,
    from_huggingface,
    infer_architecture,
    rename_head,
    to_huggingface,
)
from sysds_resnet.network.weights.checkpoint_metadata import FIELDS, metadata_of_checkpoint
from sysds_resnet.network.weights.containers import (
    FOLDER_FILES,
    container_of,
    path_of,
    read_content,
    read_header,
    to_arrays,
)
from sysds_resnet.network.weights.huggingface import agrees, folder_files, read_folder
from sysds_resnet.network.weights.metadata import METADATA_KEY, check_fits, decode_header, encode_header
from sysds_resnet.network.weights.state_dicts import choose_state_dict
from sysds_resnet.system.files import write_whole

# What names in a run's checkpoint begin with: those of weights, of their average, of the optimizer's moments.
MODEL, AVERAGE = "model/", "average/"
VELOCITY, FIRST_MOMENT, SECOND_MOMENT = "velocity/", "first_moment/", "second_moment/"
_MOMENTS = (VELOCITY, FIRST_MOMENT, SECOND_MOMENT)

describe = encode_header


class LoadedWeights(NamedTuple):
    """Weights and their metadata, as read from a file.

    Attributes:
        weights: The arrays by torchvision's names.
        metadata: What is known of "mean", "std" (of each channel, in 0..255), "classes" (names), "image_size"
            ([height, width] in pixels) and "resize_size" (pixels); and what else `ResNet.save` was given.
        notes: What users should know of how the file was read, one line each.
    """

    weights: Weights
    metadata: dict[str, Any]
    notes: list[str]


def load_file(path: str | os.PathLike[str], key: str | None = None) -> LoadedWeights:
    """Reads the weights in a file, or in a Hugging Face folder, and their metadata.

    Args:
        path: A ``.safetensors`` file; a PyTorch file (``.pth``, ``.pt``, ``.ckpt``, ``pytorch_model.bin``),
            which needs PyTorch and is read without running any code in it; the index of shards of either; or
            a folder with one of these under Hugging Face's names.
        key: The entry or the prefix of names of the network to take from a file with several. By default, if
            one is an average of the other, as in a run's checkpoint, it is the average.

    Returns:
        The weights, as C-contiguous arrays of the file's dtypes, but with bfloat16, which NumPy lacks, as
        float32 without loss. Prefixes of wrappers are dropped from names, and Hugging Face's names and other
        names of the final layer are changed to torchvision's. A backbone has no final layer.

    Raises:
        UserError: If the file is missing, empty, damaged, of an unknown kind, holds anything but tensors,
            has wrong metadata, or belongs to a ResNet that computes something else than v1.5.
    """
    content = read_content(path_of(path))
    path, source = content.path, str(content.path)
    entries = {name: value for name, value in content.entries.items() if name not in FIELDS}
    tensors, notes = choose_state_dict(_parts(entries), key, source)
    pixels = {name: tensors.pop(name) for name in ("mean", "std") if name in tensors}
    weights = to_arrays(tensors, source)
    if not weights:
        fail(source, "holds no tensors, expected the weights of a ResNet; give another file")
    renamed = any(name.startswith(("resnet.", "embedder.", "encoder.stages.")) for name in weights)
    if renamed:
        backbone = ("embedder.", "encoder.")  # the names in transformers' ResNetModel
        whole = {f"resnet.{n}" if n.startswith(backbone) else n: a for n, a in weights.items()}
        weights = from_huggingface(whole, source)
    weights, said = rename_head(weights, source)
    notes += said
    channels, num_classes = _ends(weights)
    metadata = decode_header(content.header, source)
    if METADATA_KEY not in content.header:
        entries = pixels | dict(content.entries)
        metadata, said = metadata_of_checkpoint(entries, channels, num_classes, source)
        notes += said
    if renamed or path.name in FOLDER_FILES:
        found, said = read_folder(path.parent, channels, num_classes, renamed)
        if not (metadata and agrees(metadata, found, channels)):
            metadata, notes = metadata | found, notes + said
    check_fits(metadata, channels, num_classes, source)
    return LoadedWeights(weights, metadata, notes)


def read_weights(path: str | os.PathLike[str], key: str | None = None) -> Weights:
    """Reads the weights alone, in the way of `load_file`."""
    return load_file(path, key).weights


def read_metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads what `ResNet.save` wrote beside the weights (mean, std, classes, ...); empty for other files.

    Raises:
        UserError: If the file is damaged, or a field is not what it should be.
    """
    path = path_of(path)
    if not path.is_file() or container_of(path) != "safetensors":
        return {}
    return decode_header(read_header(path), str(path))


def weights_of_checkpoint(tensors: Mapping[str, np.ndarray]) -> Weights:
    """Picks the weights to use from the tensors of a checkpoint: the averaged ones if there are such."""
    prefix = AVERAGE if any(name.startswith(AVERAGE) for name in tensors) else MODEL
    return {name.removeprefix(prefix): array for name, array in tensors.items() if name.startswith(prefix)}


def _ends(weights: Weights) -> tuple[int, int | None]:
    """Gives the number of input channels, three if unknown, and of classes, None without a final layer."""
    first, last = np.shape(weights.get("conv1.weight")), np.shape(weights.get("fc.weight"))
    return first[1] if len(first) == 4 else 3, last[0] if len(last) == 2 else None


def _parts(entries: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """Splits a run's checkpoint into its parts, without moments; gives anything else as it is."""
    if not all(isinstance(name, str) and name.startswith((MODEL, AVERAGE, *_MOMENTS)) for name in entries):
        return entries
    parts: dict[str, dict[str, Any]] = {}
    for name, tensor in entries.items():
        if not name.startswith(_MOMENTS):
            part, _, rest = name.partition("/")
            parts.setdefault(part, {})[rest] = tensor
    return parts


def write_weights(
    path: str | os.PathLike[str],
    weights: Mapping[str, np.ndarray],
    *,
    layout: Literal["torchvision", "huggingface"] = "torchvision",
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Writes weights with torchvision's names as safetensors, each array with its own dtype, bit for bit.

    With layout "torchvision" ``path`` is a ``.safetensors`` file; with "huggingface" it is a folder that gets
    ``model.safetensors``, ``config.json`` and ``preprocessor_config.json``, with class names, mean, std and
    sizes, for ``ResNetForImageClassification.from_pretrained`` and ``pipeline("image-classification")``.
    transformers wants ``num_batches_tracked`` in every norm, so absent counters are added as 0. Missing
    folders are made. ``metadata`` is a header that `describe` made; it goes into the file, beside the
    ``format: pt`` that transformers asks for. A file appears whole or not at all: it is written beside its
    place, synced, and renamed.

    Raises UserError for another extension, a dtype without a safetensors form, weights that
    `infer_architecture` does not know (Hugging Face only), or a file that cannot be written.
    """
    path = Path(path)
    header = {"format": "pt", **(metadata or {})}
    writers: dict[Path, Callable[[Path], Any]] = {}
    if layout == "huggingface":
        architecture = infer_architecture(weights, str(path))
        beside = decode_header(header, str(path))
        check_fits(beside, architecture.channels, architecture.num_classes, str(path))
        for name, values in folder_files(weights, architecture, beside).items():
            text = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
            writers[path / name] = _text_writer(text)
        norms = [name.removesuffix("running_mean") for name in weights if name.endswith("running_mean")]
        counters = {f"{norm}num_batches_tracked": np.zeros((), np.int64) for norm in norms}
        weights, path = to_huggingface(counters | dict(weights), str(path)), path / "model.safetensors"
    elif layout != "torchvision":
        raise UserError(f"layout {layout!r} is unknown; give 'torchvision' or 'huggingface'")
    if path.suffix.lower() != ".safetensors":
        fail(path, f"has extension {path.suffix!r}; weights are written as .safetensors; rename it")
    # C order because safetensors writes the memory of an array as it lies.
    arrays = {name: np.asarray(array, order="C") for name, array in weights.items()}
    for name, array in arrays.items():
        if array.dtype.kind not in "fiu" or array.dtype.itemsize > 8:
            fail(path, f"{name!r} has dtype {array.dtype}, expected float16, float32 or float64; convert it")
    writers[path] = lambda temp: save_file(arrays, temp, header)
    try:
        write_whole(writers)
    except (OSError, SafetensorError) as error:
        fail(path, f"cannot be written ({error}); check the folder and the disk")


def _text_writer(text: str) -> Callable[[Path], Any]:
    return lambda temp: temp.write_text(text, encoding="utf-8")
