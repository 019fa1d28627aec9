"""The formats of files with weights that are read: safetensors, PyTorch's, and either in shards.

The content is given as the file holds it, whatever the names in it mean. No code in a file is run.

Source: https://github.com/huggingface/safetensors.
"""

from __future__ import annotations

import argparse
import os
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from safetensors import SafetensorError, deserialize, safe_open

from sysds_resnet.errors import UserError
from sysds_resnet.network.names import Weights, fail
from sysds_resnet.network.weights.metadata import read_json, shorten
from sysds_resnet.system.command_lines import install_command
from sysds_resnet.system.extras import extra

# A crafted file makes older versions of PyTorch run code in spite of weights_only=True: CVE-2025-32434,
# CVE-2026-24747.
TORCH_MINIMUM = (2, 10)
TORCH_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".tar")  # PyTorch's examples write .pth.tar
INDEX_SUFFIX = ".index.json"
FOLDER_FILES = (
    "model.safetensors",
    f"model.safetensors{INDEX_SUFFIX}",
    "pytorch_model.bin",
    f"pytorch_model.bin{INDEX_SUFFIX}",
)
"""The files that may hold the weights in a Hugging Face folder: the first that exists is read."""

# A file name that is possible on any system.
_SHARD = re.compile(r"[^/\\\0\ud800-\udfff]{1,240}\.[a-z]+")
_EXPECTED = "expected .safetensors, .pth, .pt, .ckpt, .bin or a Hugging Face folder"
_FOREIGN = {
    b"\x89HDF\r\n\x1a\n": "an HDF5 file, as Keras and TensorFlow write",
    b"GGUF": "a GGUF file",
    b"\x1f\x8b": "compressed by gzip",
    b"BZh": "compressed by bzip2",
    b"\xfd7zXZ": "compressed by xz",
    b"\x93NUMPY": "a NumPy array",
    b"<!DOCTYPE": "a web page, perhaps of a download that failed",
    b"<html": "a web page, perhaps of a download that failed",
}
_FOREIGN_SUFFIXES = {
    ".h5": "Keras' weights",
    ".keras": "a Keras model",
    ".pb": "a TensorFlow graph",
    ".onnx": "an ONNX graph",
    ".tflite": "a TensorFlow Lite graph",
    ".msgpack": "Flax's weights",
    ".npz": "NumPy arrays",
}


@dataclass(frozen=True, eq=False)
class Content:
    """The content of a file of weights.

    Attributes:
        path: The path of the file that was read, or of the index of its shards.
        entries: The arrays or PyTorch tensors by name, and anything else that a checkpoint holds.
        header: The texts in the header of a safetensors file; empty for other files.
    """

    path: Path
    entries: Mapping[Any, Any]
    header: Mapping[str, str] = field(default_factory=dict)


def path_of(name: str | os.PathLike[str]) -> Path:
    """Gives the path with this name, whether or not anything exists there.

    Raises:
        UserError: If the name is no path, or the system refuses to look there.
    """
    if not isinstance(name, str | os.PathLike):
        raise UserError(f"weights: found {shorten(name)}, expected the path of a file or folder; give one")
    path = Path(name)
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        fail(shorten(str(path)), f"cannot be read ({error.strerror}), {_EXPECTED}; check the path")
    except ValueError as error:  # an embedded null, or what the file system's encoding lacks
        fail(shorten(str(path)), f"is no path ({error}), {_EXPECTED}; give another")
    return path


def read_content(path: Path) -> Content:
    """Reads a file of weights; in a Hugging Face folder, the file of weights that it has.

    Raises:
        UserError: If there is no such file, or it is empty, damaged, or of another kind.
    """
    path = _in_folder(path) if path.is_dir() else path
    if path.name.endswith(INDEX_SUFFIX):
        return _read_shards(path)
    if container_of(path) == "torch":
        return Content(path, _read_torch(path))
    return Content(path, _read_safetensors(path), read_header(path))


def _in_folder(folder: Path) -> Path:
    """Finds the file of weights in a Hugging Face folder."""
    for name in FOLDER_FILES:
        if (folder / name).exists():
            return folder / name
    foreign = [path.name for path in sorted(folder.iterdir()) if path.suffix.lower() in _FOREIGN_SUFFIXES]
    if foreign:
        fail(folder, f"has {foreign[0]}, which is not read here; expected {FOLDER_FILES[0]} beside it")
    if any((folder / "checkpoints").glob("step-*.safetensors")):
        fail(
            folder, f"has no weights yet; expected the end of the run, or give a file in {folder}/checkpoints"
        )
    fail(
        folder / FOLDER_FILES[0],
        "is missing; expected a file of weights, a run folder, or a Hugging Face folder with this file",
    )


def container_of(path: Path) -> Literal["safetensors", "torch"]:
    """Tells the format of a file, by its content where that has a signature, and otherwise by its extension.

    Raises:
        UserError: If it is no regular file, is empty, or has a format that is not read here.
    """
    if path.exists() and not path.is_file():
        fail(path, f"is no regular file, {_EXPECTED}; choose other weights")
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        fail(path, f"cannot be read ({error.strerror}); expected a file of weights; check the path")
    suffix = path.suffix.lower()
    if not head:
        fail(path, "is empty, expected weights; copy or download it again")
    if head.startswith(b"version https://git-lfs"):
        fail(path, "is a Git LFS pointer, expected the weights; fetch them with git lfs pull")
    for signature, kind in _FOREIGN.items():
        if head.startswith(signature):
            fail(path, f"is {kind}, {_EXPECTED}; choose other weights")
    if suffix in _FOREIGN_SUFFIXES:
        fail(path, f"is {_FOREIGN_SUFFIXES[suffix]}, by its name, {_EXPECTED}; choose other weights")
    if suffix not in (".safetensors", *TORCH_SUFFIXES):
        fail(path, f"has extension {suffix!r}, {_EXPECTED}; choose other weights")
    if head[8:9] == b"{":  # the JSON header, after its length
        return "safetensors"
    zip_or_pickle = head.startswith((b"PK", b"\x80"))
    return "torch" if zip_or_pickle or suffix != ".safetensors" else "safetensors"


def read_header(path: Path) -> dict[str, str]:
    """Reads the texts in the header of a safetensors file.

    Raises:
        UserError: If it is damaged.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError) as error:
        fail(path, f"is damaged ({error}), expected safetensors; copy or download it again")


def _read_safetensors(path: Path) -> Weights:
    try:
        tensors = deserialize(path.read_bytes())  # safetensors.numpy.load would fail at bfloat16
    except (SafetensorError, OSError) as error:
        fail(path, f"is damaged ({error}), expected safetensors; copy or download it again")
    weights = {}
    for name, tensor in tensors:
        kind = re.fullmatch(r"(F|I|U|BF)(8|16|32|64)", tensor["dtype"])
        if not kind:
            fail(path, f"{name!r} has dtype {tensor['dtype']}, expected F16, BF16, F32 or F64; convert it")
        stored = np.dtype(f"<{kind[1].lower().replace('bf', 'u')}{int(kind[2]) // 8}")
        array = np.frombuffer(tensor["data"], stored).reshape(tensor["shape"])
        if kind[1] == "BF":  # bfloat16 is the upper half of a float32
            array = (array.astype(np.uint32) << 16).view(np.float32)
        weights[name] = array
    return weights


def _read_shards(index: Path) -> Content:
    """Reads all tensors of the files that an index names, such as `model-00001-of-00002.safetensors`."""
    table = (read_json(index) or {}).get("weight_map")
    if not isinstance(table, dict) or not table:
        fail(
            index, f"weight_map is {shorten(table)}, expected names of tensors and their files; copy it again"
        )
    entries: dict[str, Any] = {}
    header: Mapping[str, str] = {}
    for shard in table.values():
        if not isinstance(shard, str) or not _SHARD.fullmatch(shard) or shard.endswith(INDEX_SUFFIX):
            fail(
                index,
                f"weight_map names the file {shorten(shard)}, expected one in its own folder; correct it",
            )
    for shard in dict.fromkeys(table.values()):
        part = read_content(index.with_name(shard))
        header = header or part.header
        entries |= {name: part.entries[name] for name in part.entries if table.get(name) == shard}
    if missing := [name for name in table if name not in entries]:
        fail(index, f"{missing[0]!r} is not in {table[missing[0]]}, where it should be; copy the files again")
    return Content(index, entries, header)


def _read_torch(path: Path) -> Mapping[Any, Any]:
    with extra("torch", str(path)):
        import torch
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < TORCH_MINIMUM:
        fail(path, f"torch {torch.__version__} reads .pth unsafely; run {install_command('torch')}")
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:  # torch.load does not check the checksums
                if any(name.endswith("/constants.pkl") for name in archive.namelist()):
                    fail(path, "is a TorchScript program, expected tensors only; save its state_dict() alone")
                if broken := archive.testzip():
                    raise zipfile.BadZipFile(f"wrong checksum of {broken}")
        # torchvision's and timm's scripts put settings beside the weights as a Namespace, a plain record
        with torch.serialization.safe_globals([argparse.Namespace]):
            content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except Exception as error:  # damage shows as anything from EOFError to RuntimeError
        if foreign := re.search(r"GLOBAL ([\w.]+)", str(error)):
            reason = f"holds the Python object {foreign[1]}, not loaded because it might run code"
            fail(path, f"{reason}; expected tensors only; if you trust it, save its state_dict() alone")
        reason = str(error).split(". ")[0] or type(error).__name__
        fail(path, f"is damaged or no PyTorch file ({reason}); copy or download it again")
    if not isinstance(content, Mapping):
        fail(path, f"holds a {type(content).__name__}, expected a dict of tensors; save model.state_dict()")
    return content


def to_arrays(tensors: Mapping[Any, Any], source: str) -> Weights:
    """Gives arrays as they are, and PyTorch tensors as C-contiguous arrays, those of bfloat16 in float32.

    Raises:
        UserError: If a value is no tensor, or one of a kind that NumPy does not have.
    """
    weights = {}
    for name, tensor in tensors.items():
        if isinstance(name, str) and isinstance(tensor, np.ndarray):
            weights[name] = tensor
            continue
        if not isinstance(name, str) or not is_tensor(tensor):
            fail(source, f"{name!r} is a {type(tensor).__name__}, expected a tensor; save model.state_dict()")
        try:
            wide = tensor.detach()
            wide = wide.float() if str(wide.dtype) == "torch.bfloat16" else wide
            weights[name] = np.array(wide.numpy(), order="C")
        except (TypeError, RuntimeError) as error:
            fail(source, f"{name!r} is no dense tensor that NumPy knows ({error}); save it as float32")
    return weights


def is_tensor(value: object) -> bool:
    """Tells whether a value is an array or a PyTorch tensor; PyTorch need not be installed."""
    return isinstance(value, np.ndarray) or (hasattr(value, "detach") and hasattr(value, "dtype"))
