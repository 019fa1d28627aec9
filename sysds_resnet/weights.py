"""Files of weights, read and written as ``{name: array}`` dictionaries with torchvision's names.

That is the exchange format of this project: state-dict names such as ``layer1.0.bn1.running_var``, filters of
shape (F, C, K, K), ``fc.weight`` of shape (classes, features). Nothing here knows the engine.

Source: https://github.com/huggingface/safetensors.
"""

from __future__ import annotations

import json
import os
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from safetensors import SafetensorError, deserialize, safe_open
from safetensors.numpy import save_file

from sysds_resnet.command_lines import install_command
from sysds_resnet.errors import UserError
from sysds_resnet.files import write_whole
from sysds_resnet.weight_names import (
    STAGES,
    Weights,
    fail,
    from_huggingface,
    infer_architecture,
    to_huggingface,
)

METADATA_KEY = "sysds_resnet"
MODEL, VELOCITY, AVERAGE = "model/", "velocity/", "average/"  # before the names of tensors in a checkpoint
# A crafted file makes older versions run code in spite of weights_only=True: CVE-2025-32434, CVE-2026-24747.
TORCH_MINIMUM = (2, 10)
# What every ResNet v1.5 has in Hugging Face's config.json, and the names do not show.
_HF_PLAIN = {"hidden_act": "relu", "downsample_in_first_stage": False, "downsample_in_bottleneck": False}


def read_weights(path: str | os.PathLike[str]) -> Weights:
    """Read a file of weights into C-contiguous arrays with torchvision's names.

    ``path`` is a ``.safetensors`` file, a Hugging Face snapshot folder with ``model.safetensors``, or a
    ``.pth``/``.pt`` file, which needs PyTorch and is read without running any code in it; its
    ``{"state_dict": ...}`` or ``{"model": ...}`` is unwrapped. Of a run's checkpoint, it is the weights, or
    their average if there is one. Hugging Face's names are renamed, and a
    ``module.`` in front of every name is dropped. Dtypes are kept, except bfloat16, which NumPy lacks and
    which becomes float32 without loss.

    Raises UserError when the file is missing, empty, damaged, of an unknown kind, holds anything but
    tensors, or belongs to a Hugging Face ResNet that computes something else than v1.5.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "model.safetensors"
        if not path.is_file():
            fail(path, "is missing; expected a file of weights or a Hugging Face folder with this file")
    weights = _read_torch(path) if _container(path) == "torch" else _read_safetensors(path)
    if not weights:
        fail(path, "holds no tensors, expected the weights of a ResNet; give another file")
    if all(name.startswith("module.") for name in weights):
        weights = {name.removeprefix("module."): array for name, array in weights.items()}
    if all(name.startswith((MODEL, VELOCITY, AVERAGE)) for name in weights):
        weights = weights_of_checkpoint(weights)
    if any(name.startswith(("resnet.", "classifier.")) for name in weights):
        _check_hf_config(path.with_name("config.json"))
        weights = from_huggingface(weights, str(path))
    return weights


def read_metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What `ResNet.save` wrote beside the weights (mean, std, classes, ...); nothing for other files."""
    path = Path(path)
    if not path.is_file() or _container(path) != "safetensors":
        return {}
    with safe_open(path, framework="numpy") as file:
        return json.loads((file.metadata() or {}).get(METADATA_KEY, "{}"))


def weights_of_checkpoint(tensors: Mapping[str, np.ndarray]) -> Weights:
    """The weights to use among the tensors of a checkpoint: the averaged ones if there are such."""
    prefix = AVERAGE if any(name.startswith(AVERAGE) for name in tensors) else MODEL
    return {name.removeprefix(prefix): array for name, array in tensors.items() if name.startswith(prefix)}


def describe(metadata: Mapping[str, Any]) -> dict[str, str]:
    """A header for `write_weights` that `read_metadata` reads; empty for no metadata."""
    return {METADATA_KEY: json.dumps(metadata)} if metadata else {}


def write_weights(
    path: str | os.PathLike[str],
    weights: Mapping[str, np.ndarray],
    *,
    layout: Literal["torchvision", "huggingface"] = "torchvision",
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write weights with torchvision's names as safetensors, each array with its own dtype, bit for bit.

    With layout "torchvision" ``path`` is a ``.safetensors`` file; with "huggingface" it is a folder that gets
    ``model.safetensors`` and ``config.json`` for ``ResNetForImageClassification.from_pretrained``. That one
    wants ``num_batches_tracked`` in every norm, so absent counters are added as 0. Missing folders are made.
    ``metadata`` goes into the header, beside the ``format: pt`` that transformers asks for. A file appears
    whole or not at all: it is written beside its place, synced, and renamed.

    Raises UserError for another extension, a dtype without a safetensors form, weights that
    `infer_architecture` does not know (Hugging Face only), or a disk that does not take the file.
    """
    path = Path(path)
    header = {"format": "pt", **(metadata or {})}
    writers: dict[Path, Callable[[Path], Any]] = {}
    if layout == "huggingface":
        config = json.dumps(_hf_config(weights, str(path)), indent=2) + "\n"
        writers[path / "config.json"] = lambda temp: temp.write_text(config, encoding="utf-8")
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


def _container(path: Path) -> Literal["safetensors", "torch"]:
    """Tell the format, by content where it has a signature and otherwise by extension."""
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        fail(path, f"cannot be read ({error.strerror}); expected a file of weights; check the path")
    suffix = path.suffix.lower()
    if not head:
        fail(path, "is empty, expected weights; copy or download it again")
    if suffix not in (".safetensors", ".pth", ".pt"):
        fail(path, f"has extension {suffix!r}; expected .safetensors, .pth, .pt or a Hugging Face folder")
    if head.startswith(b"version https://git-lfs"):
        fail(path, "is a Git LFS pointer, expected the weights; fetch them with git lfs pull")
    if head[8:9] == b"{":  # the JSON header, after its length
        return "safetensors"
    zip_or_pickle = head.startswith((b"PK", b"\x80"))
    return "torch" if zip_or_pickle or suffix != ".safetensors" else "safetensors"


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
        if kind[1] == "BF":  # the upper half of a float32
            array = (array.astype(np.uint32) << 16).view(np.float32)
        weights[name] = array
    return weights


def _read_torch(path: Path) -> Weights:
    try:
        import torch
    except ImportError:
        fail(path, f"reading it needs PyTorch; run {install_command('torch')}")
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < TORCH_MINIMUM:
        least = ".".join(map(str, TORCH_MINIMUM))
        fail(path, f'torch {torch.__version__} reads .pth unsafely; run pip install "torch>={least}"')
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:  # torch.load skips the checksums
                if broken := archive.testzip():
                    raise zipfile.BadZipFile(f"wrong checksum of {broken}")
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damage shows as anything from EOFError to RuntimeError
        if foreign := re.search(r"GLOBAL ([\w.]+)", str(error)):
            reason = f"holds the Python object {foreign[1]}, not loaded because it might run code"
            fail(path, f"{reason}; expected tensors only; if you trust it, save its state_dict() alone")
        reason = str(error).split(". ")[0] or type(error).__name__
        fail(path, f"is damaged or no PyTorch file ({reason}); copy or download it again")
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict):
        fail(path, f"holds a {type(content).__name__}, expected a dict of tensors; save model.state_dict()")
    weights = {}
    for name, tensor in content.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            fail(path, f"{name!r} is a {type(tensor).__name__}, expected a tensor; save model.state_dict()")
        try:
            tensor = tensor.detach().to(torch.float32 if tensor.dtype == torch.bfloat16 else tensor.dtype)
            weights[name] = np.array(tensor.numpy(), order="C")
        except (TypeError, RuntimeError) as error:
            fail(path, f"{name!r} is no dense tensor that NumPy knows ({error}); save it as float32")
    return weights


def _hf_config(weights: Mapping[str, np.ndarray], source: str) -> dict[str, Any]:
    architecture = infer_architecture(weights, source)
    kind, counts = STAGES[architecture.depth]
    labels = [f"LABEL_{i}" for i in range(architecture.num_classes)]
    return _HF_PLAIN | {
        "architectures": ["ResNetForImageClassification"],
        "model_type": "resnet",
        "layer_type": kind,
        "depths": counts,
        "hidden_sizes": [(256 if kind == "bottleneck" else 64) << stage for stage in range(4)],
        "embedding_size": 64,
        "num_channels": architecture.channels,
        "id2label": dict(enumerate(labels)),
        "label2id": {label: i for i, label in enumerate(labels)},
        "torch_dtype": np.asarray(weights["conv1.weight"]).dtype.name,
    }


def _check_hf_config(path: Path) -> None:
    """Refuse a ResNet whose strides or activation differ from v1.5's, which its names do not show."""
    try:
        config = dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}
    except (OSError, ValueError, TypeError) as error:
        fail(path, f"cannot be read ({error}), expected a JSON object; copy or download it again")
    for key, expected in _HF_PLAIN.items():
        if (found := config.get(key, expected)) != expected:
            fail(path, f"{key} is {found!r}, expected {expected!r} as in ResNet v1.5; give another model")
