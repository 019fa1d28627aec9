"""Converts weights between forms: python -m sysds_resnet.convert SRC DST."""

from __future__ import annotations

import sys
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
from sysds_resnet.weight_names import Weights, infer_architecture
from sysds_resnet.weights import describe, read_metadata, read_weights, write_weights

CONVERT_HEAP = 2 * 2**30  # bytes; weights alone need little
MARKER = "complete"  # the matrix that dml/weights.dml writes last

_ARCHITECTURE = """
source("dml/weights.dml") as weights
architecture = weights::architecture(folder)
"""
_LOAD = """
source("dml/weights.dml") as weights
model = weights::load(registry, folder)
"""
_SAVE = """
source("dml/weights.dml") as weights
weights::save(model, registry, folder)
done = 1
"""


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
        path: A file for `read_weights`, a folder with a run's weights.safetensors, or a folder that
            dml/weights.dml wrote.
        engine: For the last; by default a small one of its own.

    Raises:
        UserError: If there are no weights, or they are damaged.
    """
    if (path / MARKER).exists():
        with _engine(engine) as ours:
            return _read_systemds(path, ours), {}
    if (path / "weights.safetensors").exists():
        path = path / "weights.safetensors"
    return read_weights(path), read_metadata(path)


@contextmanager
def _engine(given: Engine | None) -> Iterator[Engine]:
    if given is not None:
        yield given
        return
    with Engine(heap=CONVERT_HEAP) as engine:
        yield engine


def _read_systemds(path: Path, engine: Engine) -> Weights:
    folder = str(path.resolve())
    found = engine.run(_ARCHITECTURE, {"folder": folder}, {"architecture": "matrix"})["architecture"]
    depth, channels, num_classes = engine.to_numpy(found)[0].astype(int).tolist()
    network = Network(engine, depth, channels, num_classes)
    inputs = {"registry": network.registry, "folder": folder}
    return network.from_engine(engine.run(_LOAD, inputs, {"model": "list"})["model"])


def write_systemds(path: Path, weights: Weights, engine: Engine) -> None:
    """Writes the form that the DML programs read."""
    found = infer_architecture(weights)
    network = Network(engine, found.depth, found.channels, found.num_classes)
    inputs = {
        "model": network.to_engine(weights),
        "registry": network.registry,
        "folder": str(path.resolve()),
    }
    engine.run(_SAVE, inputs, {"done": "int"})


def command(settings: ConvertSettings) -> None:
    """Converts and says what was written."""
    to = settings.to or ("torchvision" if settings.destination.suffix == ".safetensors" else None)
    if to is None:
        raise UserError(
            f"{settings.destination}: found no form for it, expected a name ending in .safetensors or --to "
            "torchvision|huggingface|systemds; add one"
        )
    weights, metadata = read_any(settings.source)
    if settings.dtype:
        weights = {
            name: array.astype(settings.dtype) if np.issubdtype(array.dtype, np.floating) else array
            for name, array in weights.items()
        }
    found = infer_architecture(weights, str(settings.source))
    if to == "systemds":
        with _engine(None) as engine:
            write_systemds(settings.destination, weights, engine)
    else:
        write_weights(settings.destination, weights, layout=to, metadata=describe(metadata))
    print(
        f"{settings.destination}: ResNet-{found.depth}, {found.channels} channels, "
        f"{found.num_classes} classes, {len(weights)} tensors ({to})"
    )


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    return run(ConvertSettings, command, argv)


if __name__ == "__main__":
    sys.exit(main())
