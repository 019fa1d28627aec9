"""Weights in every form that is read: files, Hugging Face folders, run folders, and matrices for DML."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from sysds_resnet.classes.file import CLASSES_FILE, named_classes
from sysds_resnet.engine import Engine
from sysds_resnet.errors import UserError
from sysds_resnet.network.names import Weights, check_tensors, infer_architecture
from sysds_resnet.network.registry import Network
from sysds_resnet.network.weights.containers import path_of
from sysds_resnet.network.weights.files import LoadedWeights, load_file
from sysds_resnet.network.weights.metadata import check_fits, check_metadata, read_json
from sysds_resnet.system.files import new_folder

READING_HEAP = 2 * 2**30  # bytes; reading weights needs little
# Names in a folder that dml/network/weights.dml wrote: two matrices, of which "complete" is written last, and
# the metadata that `convert` puts beside them.
TENSORS, COMPLETE, BESIDE = "tensors", "complete", "metadata.json"
# In the folder of a run, the first of them is taken.
_RUN_FILES = {"weights.safetensors": "at its end", "best.safetensors": "after its best epoch"}


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
    if (file := file_of_run(path)) is not None:
        loaded = load_file(file, key)
        loaded = loaded._replace(notes=[*loaded.notes, *_which_of_run(file)])
        return loaded if loaded.metadata.get("classes") else _with_names(loaded, path)
    return load_file(path, key)


def file_of_run(path: Path) -> Path | None:
    """Gives the file of weights that `load_weights` takes from a run folder; None for any other path."""
    return next((path / name for name in _RUN_FILES if (path / name).exists()), None)


def _which_of_run(taken: Path) -> list[str]:
    """Says which weights of a run were taken, where there are others; as lines."""
    others = [name for name in _RUN_FILES if name != taken.name and (taken.parent / name).exists()]
    run = taken.parent
    return [
        f"{run}: took the weights {_RUN_FILES[taken.name]} ({taken.name}); those {_RUN_FILES[other]} are "
        f"{run / other}"
        for other in others
    ]


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


def checked_network(weights: Weights, engine: Engine, source: str = "weights") -> Network:
    """Gives the network that weights belong to, after a check of all their tensors.

    Raises:
        UserError: If a tensor is missing, superfluous, of another shape, or not finite.
    """
    found = infer_architecture(weights, source)
    network = Network(engine, found.depth, found.channels, found.num_classes)
    check_tensors(weights, {tensor.name: tensor.shape for tensor in network.tensors}, source)
    return network


def write_systemds(
    path: Path, weights: Weights, network: Network, metadata: Mapping[str, Any] | None = None
) -> None:
    """Writes weights for the DML programs (dml/network/weights.dml): a new folder, whole or not at all.

    Args:
        path: The path of the folder.
        weights: The weights by torchvision's names.
        network: The network that they belong to, whose engine writes the matrices.
        metadata: What is known beside the weights, for metadata.json, which DML does not read.
    """
    write = network.engine.matrices.write
    values = np.concatenate([weights[tensor.name].reshape(-1) for tensor in network.tensors])
    with new_folder(path) as folder:
        if metadata:
            text = json.dumps({"sha256": digest(values), **metadata}, indent=2)
            (folder / BESIDE).write_text(text + "\n", encoding="utf-8")
        write(folder / TENSORS, values.reshape(-1, 1))
        write(folder / COMPLETE, np.array([[network.depth, network.channels, network.num_classes]]))


def digest(values: np.ndarray) -> str:
    """Gives the digest that ties metadata.json to the weights it describes: DML may overwrite the weights."""
    return hashlib.sha256(np.ascontiguousarray(values, "<f8").tobytes()).hexdigest()
