"""Checkpoints: the whole state of a run in one file that is there entirely or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from sysds_resnet.errors import UserError
from sysds_resnet.network import Network
from sysds_resnet.state import State
from sysds_resnet.weight_names import check_tensors
from sysds_resnet.weights import write_weights

FORMAT = 1
KEPT = 2  # the newest, and the one before in case a disk damages it
_MODEL, _VELOCITY = "model/", "velocity/"


def save(folder: Path, state: State, position: tuple[int, int], settings: dict[str, Any]) -> Path:
    """Writes a checkpoint and removes those older than the last `KEPT`.

    Args:
        folder: Where checkpoints lie.
        state: Weights, velocities and step; saved in float64, so that nothing is lost.
        position: Epoch and step in the epoch of the next batch.
        settings: What a resumed run must agree with.
    """
    network = state.model.network
    tensors = {_MODEL + name: array for name, array in state.model.state_dict().items()}
    velocities = network.from_engine(state.velocities, trained_only=True)
    tensors |= {_VELOCITY + name: array for name, array in velocities.items()}
    described = {"format": FORMAT, "step": state.step, "position": position, "settings": settings}
    path = folder / f"step-{state.step:08d}.safetensors"
    write_weights(path, tensors, metadata={"checkpoint": json.dumps(described)})
    for old in checkpoints(folder)[:-KEPT]:
        old.unlink()
    return path


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, oldest first."""
    return sorted(folder.glob("step-*.safetensors"))


def restore(folder: Path, state: State, settings: dict[str, Any]) -> tuple[int, int]:
    """Puts the newest checkpoint of a folder into a state.

    Args:
        folder: Where checkpoints lie.
        state: Of the same network.
        settings: Of the run that resumes.

    Returns:
        Epoch and step in the epoch of the next batch.

    Raises:
        UserError: If there is none, it is damaged, or it belongs to other settings.
    """
    found = checkpoints(folder)
    if not found:
        raise UserError(f"{folder}: found no checkpoint, expected step-*.safetensors; start without --resume")
    path = found[-1]
    try:
        with safe_open(path, framework="numpy") as file:
            described = json.loads((file.metadata() or {}).get("checkpoint", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(
            f"{path}: found a damaged checkpoint ({' '.join(str(error).split())}); "
            "remove it to resume from the one before"
        ) from error
    if described.get("format") != FORMAT:
        raise UserError(f"{path}: found checkpoint format {described.get('format')}, expected {FORMAT}")
    for name, value in settings.items():
        if described["settings"].get(name) != value:
            raise UserError(
                f"{name}: found {value}, expected {described['settings'].get(name)} as in {path}; "
                "resume with the run's own settings"
            )
    network = state.model.network
    weights = {n.removeprefix(_MODEL): a for n, a in tensors.items() if n.startswith(_MODEL)}
    velocities = {n.removeprefix(_VELOCITY): a for n, a in tensors.items() if n.startswith(_VELOCITY)}
    state.model.load_state_dict(weights, str(path))
    state.velocities = _velocities(network, velocities, str(path))
    state.step = described["step"]
    epoch, step = described["position"]
    return epoch, step


def _velocities(network: Network, velocities: dict, source: str):
    trained = {tensor.name: tensor.shape for tensor in network.tensors if tensor.role.trained}
    check_tensors(velocities, trained, source)
    engine = network.engine
    # running statistics have no velocity; any matrix keeps their place
    placeholder = np.zeros((1, 1))
    return engine.make_list(
        [
            engine.from_numpy(
                tensor.to_engine(velocities[tensor.name]) if tensor.role.trained else placeholder
            )
            for tensor in network.tensors
        ]
    )
