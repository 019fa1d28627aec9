"""Converts weights between forms: python -m sysds_resnet.convert SRC DST."""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field
from pydantic_settings import CliPositionalArg

from sysds_resnet.engine import Engine
from sysds_resnet.errors import UserError
from sysds_resnet.network import Network
from sysds_resnet.settings import Settings, run
from sysds_resnet.weight_names import Weights, check_tensors, infer_architecture
from sysds_resnet.weights import describe, read_metadata, read_weights, write_weights

CONVERT_HEAP = 2 * 2**30  # bytes; weights alone need little
# The two matrices of a folder of dml/weights.dml; the second is written last.
TENSORS, COMPLETE = "tensors", "complete"


class ConvertSettings(Settings):
    """Converts weights. SRC may have any of the forms below, or be a .pth file or a run folder."""

    source: CliPositionalArg[Path] = Field(description="Weights to read.")
    destination: CliPositionalArg[Path] = Field(description="File or folder to write.")
    to: Literal["torchvision", "huggingface", "systemds"] | None = Field(
        None,
        description="torchvision: a .safetensors file; huggingface: a folder for "
        "ResNetForImageClassification; systemds: a folder of matrices for the DML programs. By default "
        "torchvision if DST ends in .safetensors.",
    )
    dtype: Literal["float16", "float32", "float64"] | None = Field(
        None, description="Type of the numbers; by default as in SRC. systemds is always float64."
    )


def read_any(path: Path, engine: Engine | None = None) -> tuple[Weights, dict[str, Any]]:
    """A state dict with torchvision's names and what stands beside it, from any form of weights.

    Args:
        path: A file for `read_weights`, a run folder with weights.safetensors, or else best.safetensors, or a
            folder that dml/weights.dml wrote.
        engine: For the last; by default a small one of its own.

    Raises:
        UserError: If there are no weights, or they are damaged.
    """
    if (path / COMPLETE).exists():
        with _engine(engine) as ours:
            return _read_systemds(path, ours), {}
    # of a run, of one that has not ended, of Hugging Face
    names = ("weights.safetensors", "best.safetensors", "model.safetensors")
    path = next((path / name for name in names if (path / name).exists()), path)
    return read_weights(path), read_metadata(path)


@contextmanager
def _engine(given: Engine | None) -> Iterator[Engine]:
    if given is not None:
        yield given
        return
    with Engine(heap=CONVERT_HEAP) as engine:
        yield engine


def _read_systemds(folder: Path, engine: Engine) -> Weights:
    architecture = engine.matrices.read(folder / COMPLETE).reshape(-1).astype(int).tolist()
    if len(architecture) != 3 or min(architecture) < 1:
        raise UserError(f"{folder}: found weights that were not written to the end; write them again")
    network = Network(engine, *architecture)
    values = engine.matrices.read(folder / TENSORS).reshape(-1)
    ends = np.cumsum([math.prod(tensor.shape) for tensor in network.tensors])
    if values.size != ends[-1]:
        depth, channels, num_classes = architecture
        raise UserError(
            f"{folder / TENSORS}: found {values.size} values, expected {ends[-1]} for ResNet-{depth} with "
            f"{channels} channels and {num_classes} classes; write the weights again"
        )
    parts = np.split(values, ends[:-1])
    return {t.name: part.reshape(t.shape) for t, part in zip(network.tensors, parts, strict=True)}


def _checked_network(weights: Weights, engine: Engine, source: str = "weights") -> Network:
    found = infer_architecture(weights, source)
    network = Network(engine, found.depth, found.channels, found.num_classes)
    check_tensors(weights, {tensor.name: tensor.shape for tensor in network.tensors}, source)
    return network


def write_systemds(path: Path, weights: Weights, engine: Engine) -> None:
    """Writes the form that the DML programs read (dml/weights.dml): a new folder, there as a whole."""
    if path.exists():
        raise UserError(f"{path}: found a file or folder there, expected none; remove it or choose another")
    network = _checked_network(weights, engine)
    values = np.concatenate([weights[tensor.name].reshape(-1) for tensor in network.tensors])
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as temporary:
        folder = Path(temporary).resolve() / path.name
        engine.matrices.write(folder / TENSORS, values.reshape(-1, 1))
        architecture = np.array([[network.depth, network.channels, network.num_classes]])
        engine.matrices.write(folder / COMPLETE, architecture)
        folder.rename(path)


def command(settings: ConvertSettings) -> None:
    """Converts and says what was written."""
    to = settings.to or ("torchvision" if settings.destination.suffix == ".safetensors" else None)
    if to is None:
        raise UserError(
            f"{settings.destination}: found no form for it, expected a name ending in .safetensors or --to "
            "torchvision|huggingface|systemds; add one"
        )
    with _engine(None) as engine:
        weights, metadata = read_any(settings.source, engine)
        if settings.dtype:
            weights = {
                name: array.astype(settings.dtype) if np.issubdtype(array.dtype, np.floating) else array
                for name, array in weights.items()
            }
        network = _checked_network(weights, engine, str(settings.source))
        if to == "systemds":
            write_systemds(settings.destination, weights, engine)
        else:
            write_weights(settings.destination, weights, layout=to, metadata=describe(metadata))
    print(
        f"{settings.destination}: ResNet-{network.depth}, {network.channels} channels, "
        f"{network.num_classes} classes, {len(weights)} tensors ({to})"
    )


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    return run(ConvertSettings, command, argv)


if __name__ == "__main__":
    sys.exit(main())
