"""The tensors of a training state on their way out of the engine and back into it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from py4j.java_gateway import JavaObject

from sysds_resnet.network.names import check_tensors
from sysds_resnet.network.registry import Network
from sysds_resnet.network.weights.files import AVERAGE, MODEL, VELOCITY
from sysds_resnet.training.state import State

PARTS = (MODEL, VELOCITY, AVERAGE)  # what the names of tensors begin with

Handles = tuple[JavaObject, JavaObject, JavaObject | None]


def handles_of(state: State) -> Handles:
    """Gives the handles of the lists that the state consists of now; training replaces them by new lists."""
    return state.model.weights, state.velocities, state.average


def fetch_tensors(network: Network, handles: Handles) -> dict[str, np.ndarray]:
    """Fetches the tensors of handles, by their names with "model/", "velocity/" or "average/" before them."""
    tensors = {}
    for prefix, handle in zip(PARTS, handles, strict=True):
        if handle is not None:
            found = network.from_engine(handle, trained_only=prefix == VELOCITY)
            tensors |= {prefix + name: array for name, array in found.items()}
    return tensors


def put_tensors(state: State, tensors: Mapping[str, np.ndarray], source: str) -> None:
    """Puts tensors, as `fetch_tensors` gives them, into a state of the same network.

    Raises:
        UserError: If they belong to another network; the message calls them `source`.
    """
    network = state.model.network
    model, velocities, average = (
        {name.removeprefix(prefix): array for name, array in tensors.items() if name.startswith(prefix)}
        for prefix in PARTS
    )
    state.model.load_state_dict(model, source)
    state.velocities = _velocities(network, velocities, source)
    state.average = network.to_engine(average, source) if average else None


def _velocities(network: Network, velocities: Mapping[str, np.ndarray], source: str) -> JavaObject:
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
