"""The tensors of a training state on their way out of the engine and back into it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from py4j.java_gateway import JavaObject

from sysds_resnet.network.names import check_tensors
from sysds_resnet.network.registry import Network
from sysds_resnet.network.weights.files import AVERAGE, FIRST_MOMENT, MODEL, SECOND_MOMENT, VELOCITY
from sysds_resnet.training.state import State

# What the names of the optimizer's tensors begin with, by the number of its lists of moments.
_MOMENTS = {1: (VELOCITY,), 2: (FIRST_MOMENT, SECOND_MOMENT)}

Handles = dict[str, JavaObject]
"""The handles of the lists of a state, by what the names of their tensors begin with in a checkpoint."""


def handles_of(state: State) -> Handles:
    """Gives the handles of the lists that the state consists of now; training replaces them by new lists."""
    moments = dict(zip(_MOMENTS[len(state.moments)], state.moments, strict=True))
    average = {} if state.average is None else {AVERAGE: state.average}
    return {MODEL: state.model.weights, **moments, **average}


def fetch_tensors(network: Network, handles: Handles) -> dict[str, np.ndarray]:
    """Fetches the tensors of handles, by their names with those of `handles_of` before them."""
    tensors = {}
    for prefix, handle in handles.items():
        found = network.from_engine(handle, trained_only=prefix not in (MODEL, AVERAGE))
        tensors |= {prefix + name: array for name, array in found.items()}
    return tensors


def put_tensors(state: State, tensors: Mapping[str, np.ndarray], source: str) -> None:
    """Puts tensors, as `fetch_tensors` gives them, into a state of the same network and optimizer.

    Raises:
        UserError: If they belong to another network or optimizer; the message calls them `source`.
    """

    def part(prefix: str) -> dict[str, np.ndarray]:
        return {name.removeprefix(prefix): a for name, a in tensors.items() if name.startswith(prefix)}

    network, average = state.model.network, part(AVERAGE)
    moments = [part(prefix) for prefix in _MOMENTS[len(state.moments)]]
    state.model.load_state_dict(part(MODEL), source)
    state.moments = tuple(_moment(network, arrays, source) for arrays in moments)
    state.average = network.to_engine(average, source) if average else None


def _moment(network: Network, arrays: Mapping[str, np.ndarray], source: str) -> JavaObject:
    trained = {tensor.name: tensor.shape for tensor in network.tensors if tensor.role.trained}
    check_tensors(arrays, trained, source)
    engine = network.engine
    # running statistics have no moments; any matrix keeps their place
    placeholder = np.zeros((1, 1))
    return engine.make_list(
        [
            engine.from_numpy(tensor.to_engine(arrays[tensor.name]) if tensor.role.trained else placeholder)
            for tensor in network.tensors
        ]
    )
