"""The profile of training steps, by layer and DML function: profile.csv and profile.png."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sysds_resnet.engine.recorder import Call, Matrix
from sysds_resnet.errors import one_line
from sysds_resnet.report.events import StepMetrics
from sysds_resnet.system.extras import extra
from sysds_resnet.system.files import write_whole
from sysds_resnet.training.optimizer import Optimizer
from sysds_resnet.training.state import State

if TYPE_CHECKING:
    import pandas as pd

WARMUP_STEPS = 10  # in which the JVM compiles what runs often, and touches its heap for the first time

_PASSES = {
    "forward_train": "forward",
    "backward_upper": "backward",
    "backward_lower": "backward",
    "update": "update",
}
_WALKS = ("network", "backward", "inference", "gradients")  # DML files whose own work belongs to no layer
_POOLS = ("pool", "pool_backward")
# The DML functions of each kind of work, by the file's name without folders and ending, and the function's.
_KINDS = {
    "multiply": {
        *("conv2d.forward", "conv2d.backward", "conv2d.windows_forward", "conv2d.windows_backward"),
        *("conv2d.windows_backward_filter", "product.*"),
        "expansion.*",
    },
    "gather": {
        "conv2d.patches",
        "conv2d.backward_gather",
        "conv2d.pixels",
        "conv2d.pixels_backward",
        "max_pool2d.*",
    },
    "pass": {"pixelwise.*"},
    "update": {"tensors.*", "sgd.*", "lars.*", "adamw.*", "lamb.*"},
}


class StepProfiler:
    """A profiler, which does training steps and records some of them.

    Args:
        state: The state that the steps change.
        steps: The number of steps to record, after up to ten for warm-up.
        total: The number of steps that will be done; all but the first can be recorded.
        folder: The folder where profile.csv and profile.png are written after the last recorded step.
        report: A function that is given a line that sums the profile up.
    """

    def __init__(
        self, state: State, steps: int, total: int, folder: Path, report: Callable[[str], None]
    ) -> None:
        self._state, self._steps, self._folder, self._report = state, steps, folder, report
        self._warmup = max(1, min(WARMUP_STEPS, total - steps))
        self._done = 0
        self._seconds: list[float] = []
        self._collections = 0.0
        self._calls: list[list[Call]] = []

    def update(self, images: np.ndarray, labels: np.ndarray, optimizer: Optimizer) -> StepMetrics:
        """Does a step by `State.update`, and records it if it is one of those to record."""
        self._done += 1
        if not 0 < self._done - self._warmup <= self._steps:
            return self._state.update(images, labels, optimizer)
        engine = self._state.model.engine
        self._collections -= engine.collection_seconds()
        with engine.record() as calls:
            began = time.perf_counter()
            metrics = self._state.update(images, labels, optimizer)
            self._seconds.append(time.perf_counter() - began)
        self._collections += engine.collection_seconds()
        self._calls.append(calls)
        if self._done == self._warmup + self._steps:
            try:
                self._write()
            except Exception as error:  # the profile is only a report, and the step is done
                self._report(f"profile not written: {one_line(error)}; the run goes on")
        return metrics

    def _write(self) -> None:
        table = tabulate(self._calls, self._seconds, _layer_names(self._state))
        csv, png = self._folder / "profile.csv", self._folder / "profile.png"
        write_whole(
            {
                csv: lambda path: table.to_csv(path, index=False, float_format="%.6g"),
                png: lambda path: plot(table, path),
            }
        )
        self._report(_summary(table, self._collections / sum(self._seconds), self._folder))


def tabulate(steps: list[list[Call]], seconds: list[float], layers: list[str]) -> pd.DataFrame:
    """Tabulates what an average step takes by layer, pass and function, in the order in which they run.

    Args:
        steps: The calls of each recorded step.
        seconds: The seconds that each step took.
        layers: The names of the units in the registry's order, and that of the final layer.

    Returns:
        A table with the columns layer, pass, function, kind ("multiply", "gather", "pass" over activations or
        weights, "update" or "other"), calls, seconds (without those of the functions that it called),
        gigabytes (operands in memory), gflop (of multiplies), gflop_per_s, gb_per_s.
    """
    import pandas as pd  # not at the top: commands start sooner without it

    rows = [row for calls in steps for row in _rows(calls, layers)]
    table = pd.DataFrame(rows, columns=["layer", "pass", "function", "seconds", "gigabytes", "gflop"])
    table.insert(3, "calls", 1)
    table = table.groupby(["layer", "pass", "function"], sort=False, as_index=False).sum()
    numbers = ["calls", "seconds", "gigabytes", "gflop"]
    table[numbers] /= len(steps)
    outside = {"layer": "step", "pass": "", "function": "outside functions", "calls": 1}
    outside |= {"seconds": np.mean(seconds) - table["seconds"].sum(), "gigabytes": 0.0, "gflop": 0.0}
    table.loc[len(table)] = outside
    table.insert(3, "kind", table["function"].map(_kind))
    table["gflop_per_s"] = (table["gflop"] / table["seconds"]).where(table["gflop"] > 0)
    table["gb_per_s"] = (table["gigabytes"] / table["seconds"]).where(table["gigabytes"] > 0)
    return table


def plot(table: pd.DataFrame, path: Path) -> None:
    """Draws a table of `tabulate`: milliseconds of each layer by kind, and the speed of its multiplies."""
    with extra("plots", "pictures"):
        from matplotlib.figure import Figure

    layers = list(dict.fromkeys(table["layer"]))
    figure = Figure(figsize=(12, 1.5 + 0.22 * len(layers)), layout="constrained")
    times, speeds = figure.subplots(1, 2, sharey=True, width_ratios=[2, 1])
    left = np.zeros(len(layers))
    for kind in [*_KINDS, "other"]:
        part = table[table["kind"] == kind].groupby("layer")["seconds"].sum()
        width = 1e3 * part.reindex(layers, fill_value=0).to_numpy()
        times.barh(layers, width, left=left, label=kind)
        left += width
    times.set_xlabel("milliseconds a step")
    times.legend()
    times.invert_yaxis()
    multiplies = table[table["gflop"] > 0]
    for name, rows in multiplies.groupby("pass", sort=False):
        sums = rows.groupby("layer", sort=False)[["gflop", "seconds"]].sum()
        speeds.plot(sums["gflop"] / sums["seconds"], sums.index, "o", label=name, markersize=4)
    speeds.set_xlabel("multiplies, GFLOP/s")
    speeds.set_xlim(left=0)
    speeds.legend()
    for axes in (times, speeds):
        axes.grid(axis="x", alpha=0.3)
        axes.set_axisbelow(True)
        axes.margins(y=0.01)
    figure.suptitle(f"a training step: {table['seconds'].sum():.2f} s")
    figure.savefig(path, format="png", dpi=110)


@dataclass
class _Node:
    call: Call
    parent: _Node | None
    children: list[_Node] = field(default_factory=list)

    def ancestors(self) -> list[_Node]:
        """Gives the calls that this one is part of, from itself to the outermost."""
        return [self, *(self.parent.ancestors() if self.parent else [])]

    def seconds(self) -> float:
        """Gives the seconds that the call took, without those of the functions that it called."""
        inner = sum(child.call.end - child.call.start for child in self.children)
        return (self.call.end - self.call.start - inner) / 1e9


def _rows(calls: list[Call], layers: list[str]) -> list[tuple[str, str, str, float, float, float]]:
    nodes = _tree(calls)
    units = [_unit(node) for node in nodes]
    # A call between units belongs to the unit before it in the forward pass, after it in the backward pass.
    before, after = list(units), list(units)
    for i in range(1, len(units)):
        before[i] = before[i] or before[i - 1]
    for i in reversed(range(len(units) - 1)):
        after[i] = after[i] or after[i + 1]
    rows = []
    for i, node in enumerate(nodes):
        names = [ancestor.call.function.split(".") for ancestor in node.ancestors()]
        phase = next((_PASSES[name] for _, name in reversed(names) if name in _PASSES), "")
        unit = {"forward": before[i] or 1, "backward": after[i] or 1}.get(phase)
        if any(file == "max_pool2d" or name in _POOLS for file, name in names):
            layer = "maxpool"
        elif names[0][0] in _WALKS:
            layer = "step"
        elif names[0][0] == "product" and names[1][0] == "backward":  # in no unit: the final layer
            layer = layers[-1]
        else:
            layer = layers[unit - 1] if unit else "step"
        gigabytes = 0.0 if node.children else _bytes(node.call) / 1e9
        rows.append((layer, phase, node.call.function, node.seconds(), gigabytes, _gflop(node)))
    return rows


def _tree(calls: list[Call]) -> list[_Node]:
    """Gives the calls in the order of their start, each with the calls that it made."""
    nodes: list[_Node] = []
    current: _Node | None = None
    for call in sorted(calls, key=lambda call: (call.start, -call.end)):
        while current is not None and call.start >= current.call.end:
            current = current.parent
        node = _Node(call, current)
        if current is not None:
            current.children.append(node)
        nodes.append(node)
        current = node
    return nodes


def _unit(node: _Node) -> int | None:
    """Gives the number, from 1, of the unit that a call works on, if it or one of its callers says so."""
    for ancestor in node.ancestors():
        if "u" in ancestor.call.operands and ancestor.call.function.startswith("unit."):
            return int(float(ancestor.call.operands["u"]))
    return None


def _bytes(call: Call) -> int:
    """Gives the bytes of the matrices that a function reads and returns."""
    gathers = call.function == "conv2d.patches"
    unused = () if gathers else ("S", "S_t")  # this package's operators know the windows from their sizes
    operands = [operand for name, operand in call.operands.items() if name not in unused]
    return sum(operand.bytes for operand in operands if isinstance(operand, Matrix))


def _gflop(node: _Node) -> float:
    """Gives the floating-point operations of the multiplies in a function itself, in 1e9."""
    call = node.call
    matrix = {name: value for name, value in call.operands.items() if isinstance(value, Matrix)}
    if call.function == "conv2d.forward":
        flop = 2 * matrix["P"].rows * matrix["W"].rows * matrix["W"].columns
    elif call.function == "conv2d.windows_forward":
        flop = _flop_of_windows(call, matrix["X"].columns, matrix["W"].columns)
    elif call.function.startswith("conv2d.windows_backward") and not node.children:
        gradients = 2 if "W" in matrix else 1
        flop = gradients * _flop_of_windows(call, matrix["X"].columns, matrix["dout"].columns)
    elif call.function == "product.left_transposed":
        flop = 2 * matrix["A"].rows * matrix["A"].columns * matrix["B"].columns
    elif call.function == "product.right_transposed":
        flop = 2 * matrix["A"].rows * matrix["A"].columns * matrix["B"].rows
    elif call.function == "product.gram":  # a symmetric result: half of the operations are enough
        flop = matrix["A"].rows * matrix["A"].columns ** 2
    elif call.function == "product.joined":
        flop = 2 * matrix["A"].rows * matrix["W"].rows * (matrix["W"].columns - 1)
    elif call.function == "conv2d.backward" and not node.children:
        flop = 4 * matrix["P"].rows * matrix["P"].columns * matrix["dout"].columns
    else:
        flop = 0
    return flop / 1e9


def _flop_of_windows(call: Call, channels: int, filters: int) -> float:
    """Gives the operations of a convolution; its gather matrix has a row for each pixel under the filter."""
    return 2 * call.operands["S"].rows * channels * filters


def _kind(function: str) -> str:
    file = function.split(".")[0] + ".*"
    return next((kind for kind, names in _KINDS.items() if function in names or file in names), "other")


def _layer_names(state: State) -> list[str]:
    weights = [tensor.name for tensor in state.model.network.tensors if tensor.name.endswith(".weight")]
    convolutions = weights[:-1:2]  # the weight of each is followed by its norm's scale
    return [name.removesuffix(".weight") for name in (*convolutions, weights[-1])]


def _summary(table: pd.DataFrame, collections: float, folder: Path) -> str:
    shares = table.groupby("kind")["seconds"].sum().sort_values(ascending=False) / table["seconds"].sum()
    listed = ", ".join(f"{kind} {100 * share:.0f} %" for kind, share in shares.items())
    return (
        f"profile: {folder / 'profile.csv'} and profile.png; {listed}; "
        f"garbage collection, which is in all of these, {100 * collections:.0f} %"
    )
