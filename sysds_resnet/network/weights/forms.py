"""Weights in every form that is read: files, Hugging Face folders, run folders, and matrices from DML."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from sysds_resnet.classes.file import CLASSES_FILE, named_classes
from sysds_resnet.engine import Engine
from sysds_resnet.errors import UserError
from sysds_resnet.network.names import Weights
from sysds_resnet.network.registry import Network
from sysds_resnet.network.weights.containers import path_of
from sysds_resnet.network.weights.files import LoadedWeights, load_file
from sysds_resnet.network.weights.metadata import check_fits, check_metadata, read_json

READING_HEAP = 2 * 2**30  # bytes; reading weights needs little
# Names in a folder that dml/network/weights.dml wrote: two matrices, of which "complete" is written last, and
# the metadata that `convert` puts beside them.
TENSORS, COMPLETE, BESIDE = "tensors", "complete", "metadata.json"
_RUN_FILES = ("weights.safetensors", "best.safetensors")  # in the folder of a run: at its end, and before


def load_weights(path: str | Path, engine: Engine | None = None, key: str | None = None) -> LoadedWeights:
    """Reads weights and their metadata from any form.

    Args:
        path: A file or a Hugging Face folder that `load_file` reads; a run folder with weights.safetensors,
            or else best.safetensors; or a folder that dml/network/weights.dml wrote.
        engine: The engine that reads a folder which DML wrote; by default a small one, opened for this.
        key: The network to take from a file that holds several, named as for `load_file`.

    Raises:
        UserError: If there are no weights, or the weights or their metadata are damaged.
    """
    path = path_of(path)
    if (path / COMPLETE).exists():
        with engine_or_own(engine) as ours:
            return _read_systemds(path, ours)
    for name in _RUN_FILES:
        if (path / name).exists():
            loaded = load_file(path / name, key)
            return loaded if loaded.metadata.get("classes") else _with_names(loaded, path)
    return load_file(path, key)


@contextmanager
def engine_or_own(given: Engine | None) -> Iterator[Engine]:
    """Gives the engine that is passed in, or opens a small one for the `with` block."""
    if given is not None:
        yield given
        return
    with Engine(heap=READING_HEAP) as engine:
        yield engine


def _with_names(loaded: LoadedWeights, run: Path) -> LoadedWeights:
    """Adds to weights without class names those of the run whose folder they lie in."""
    names = named_classes(run)
    if names is None:
        return loaded
    source = str(run / CLASSES_FILE)
    found = check_metadata({**loaded.metadata, "classes": names}, source)
    head = loaded.weights.get("fc.weight")
    check_fits({"classes": names}, None, None if head is None else len(head), source)
    return loaded._replace(metadata=found)


def _read_systemds(folder: Path, engine: Engine) -> LoadedWeights:
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
    weights: Weights = {t.name: part.reshape(t.shape) for t, part in zip(network.tensors, parts, strict=True)}
    metadata = check_metadata(read_json(folder / BESIDE) or {}, str(folder / BESIDE))
    if metadata and metadata.pop("sha256", None) != digest(values):
        text = f"{folder / BESIDE}: belongs to other weights than those beside it, and is left out; remove it"
        return LoadedWeights(weights, {}, [text])
    check_fits(metadata, network.channels, network.num_classes, str(folder / BESIDE))
    return LoadedWeights(weights, metadata, [])


def digest(values: np.ndarray) -> str:
    """Gives the digest that ties metadata.json to the weights it describes: DML may overwrite the weights."""
    return hashlib.sha256(np.ascontiguousarray(values, "<f8").tobytes()).hexdigest()
