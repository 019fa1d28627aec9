"""The command that converts weights between forms: python -m sysds_resnet.convert SRC DST."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sysds_resnet.engine import Engine
from sysds_resnet.errors import UserError, printable
from sysds_resnet.network.names import Weights, check_tensors, infer_architecture, infer_backbone, is_body
from sysds_resnet.network.registry import Network
from sysds_resnet.network.weights.files import describe, write_weights
from sysds_resnet.network.weights.forms import BESIDE, COMPLETE, READING_HEAP, TENSORS, digest, load_weights
from sysds_resnet.settings.base import Settings
from sysds_resnet.settings.command_line import run
from sysds_resnet.settings.fields import setting
from sysds_resnet.system.console import note


class ConvertSettings(Settings):
    """Converts weights. SRC may have any of the forms below, or be a .pth file or a run folder."""

    source: Path = setting(positional=True, group="input", value="SRC", description="The weights to read.")
    destination: Path = setting(
        positional=True, group="output", value="DST", description="The file or folder to write."
    )
    to: Literal["torchvision", "huggingface", "systemds"] | None = setting(
        None,
        group="output",
        description="The form to write. torchvision: a .safetensors file; huggingface: a new folder for "
        "ResNetForImageClassification and its image processor; systemds: a new folder of matrices for the "
        "DML programs. By default torchvision if DST ends in .safetensors.",
    )
    dtype: Literal["float16", "float32", "float64"] | None = setting(
        None,
        group="output",
        description="The type of the numbers; by default that of SRC, and float32 for huggingface. systemds "
        "is always float64.",
    )
    key: str | None = setting(
        None,
        group="input",
        description="The entry or prefix of the network to take from a file with several ones; by default "
        "that of the averaged weights.",
    )


def _checked_network(weights: Weights, engine: Engine, source: str = "weights") -> Network:
    found = infer_architecture(weights, source)
    network = Network(engine, found.depth, found.channels, found.num_classes)
    check_tensors(weights, {tensor.name: tensor.shape for tensor in network.tensors}, source)
    return network


def _check_backbone(weights: Weights, engine: Engine, source: str) -> str:
    """Checks weights without a final layer, and describes their network."""
    found = infer_backbone(weights, source)
    network = Network(engine, found.depth, found.channels, 2)
    tensors = {tensor.name: tensor.shape for tensor in network.tensors if is_body(tensor.name)}
    check_tensors(weights, tensors, source)
    return f"ResNet-{found.depth}, {found.channels} channels, no final layer"


@contextmanager
def _new_folder(path: Path) -> Iterator[Path]:
    """Gives a folder to fill, which gets its name when all is in it, or else is removed.

    Raises:
        UserError: If something of this name is there already.
    """
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise UserError(f"{path}: found a file or folder there, expected none; remove it or choose another")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as temporary:
        folder = Path(temporary).resolve() / path.name
        folder.mkdir()
        yield folder
        folder.rename(path)


def write_systemds(
    path: Path, weights: Weights, engine: Engine, metadata: Mapping[str, Any] | None = None
) -> None:
    """Writes weights for the DML programs (dml/network/weights.dml): a new folder, whole or not at all.

    Args:
        path: The path of the folder.
        weights: The weights by torchvision's names.
        engine: The engine that writes the matrices.
        metadata: What is known beside the weights, for metadata.json, which DML does not read.
    """
    network = _checked_network(weights, engine)
    values = np.concatenate([weights[tensor.name].reshape(-1) for tensor in network.tensors])
    with _new_folder(path) as folder:
        if metadata:
            text = json.dumps({"sha256": digest(values), **metadata}, indent=2)
            (folder / BESIDE).write_text(text + "\n", encoding="utf-8")
        engine.matrices.write(folder / TENSORS, values.reshape(-1, 1))
        architecture = np.array([[network.depth, network.channels, network.num_classes]])
        engine.matrices.write(folder / COMPLETE, architecture)


def to_dtype(weights: Weights, dtype: str, source: str) -> Weights:
    """Converts weights to another floating-point type; counters, which are integers, stay as they are.

    Raises:
        UserError: If a finite number would become infinite.
    """
    converted = dict(weights)
    for name, array in weights.items():
        if np.issubdtype(array.dtype, np.floating):
            with np.errstate(over="ignore"):
                converted[name] = array.astype(dtype)
            if np.isinf(converted[name]).any() and np.isfinite(array).all():
                raise UserError(
                    f"{source}: found {np.abs(array).max():g} in {name}, expected at most "
                    f"{np.finfo(dtype).max:g}, the largest number of {dtype}; choose a wider --dtype"
                )
    return converted


def command(settings: ConvertSettings) -> None:
    """Converts the weights, and prints what was written."""
    source, destination = settings.source, settings.destination
    to = settings.to or ("torchvision" if destination.suffix == ".safetensors" else None)
    if to is None:
        raise UserError(
            f"{destination}: found no form for it, expected a name ending in .safetensors or --to "
            "torchvision|huggingface|systemds; add one"
        )
    with Engine(heap=READING_HEAP) as engine:
        weights, metadata, notes = load_weights(source, engine, settings.key)
        for text in notes:
            note(text)
        if to == "torchvision" and all(map(is_body, weights)):  # a backbone, from which training can start
            what = _check_backbone(weights, engine, str(source))
        else:
            network = _checked_network(weights, engine, str(source))
            what = f"ResNet-{network.depth}, {network.channels} channels, {network.num_classes} classes"
        dtype = settings.dtype or ("float32" if to == "huggingface" else None)
        if dtype:
            weights = to_dtype(weights, dtype, str(source))
        if to == "systemds":
            write_systemds(destination, weights, engine, metadata)
        elif to == "huggingface":
            with _new_folder(destination) as folder:
                write_weights(folder, weights, layout=to, metadata=describe(metadata))
        else:
            write_weights(destination, weights, metadata=describe(metadata))
    print(printable(f"{destination}: {what}, {len(weights)} tensors ({to})"))


def main(argv: list[str] | None = None) -> int:
    """Runs the command line, and gives the exit code."""
    return run(ConvertSettings, command, argv)


if __name__ == "__main__":
    sys.exit(main())
