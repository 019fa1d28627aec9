"""--profile: what a step does and takes, by layer, checked against PyTorch's own count of operations."""

import numpy as np
import pandas as pd
import pytest
import torch
from command_line import assert_one_line_error, run_here
from narrow import STEM
from reference import ResNet as TorchResNet
from torch.utils.flop_counter import FlopCounterMode

from sysds_resnet import ResNet
from sysds_resnet.engine import Engine
from sysds_resnet.engine.program import Program
from sysds_resnet.engine.recorder import Call, Matrix
from sysds_resnet.train import TrainSettings
from sysds_resnet.training.profiling import StepProfiler, tabulate
from sysds_resnet.training.state import State

CLASSES = 10


def profiled(engine, tmp_path, depth, size, n):
    """The table of one recorded step, and the profiler's report."""
    model = ResNet(depth, num_classes=CLASSES, engine=engine)
    optimizer = TrainSettings(micro_batch=n, batch_size=n).make_optimizer(10)
    lines = []
    profiler = StepProfiler(State.fresh(model), 1, 2, tmp_path, lines.append)
    images = np.random.default_rng(0).integers(0, 256, (n, size, size, 3), dtype=np.uint8)
    for _ in range(2):
        profiler.update(images, np.arange(n) % CLASSES, optimizer)
    return pd.read_csv(tmp_path / "profile.csv", keep_default_na=False, na_values=[""]), lines


def torch_gflop(depth, size, n):
    """Operations of the convolutions, forward and backward."""
    model = TorchResNet(depth, CLASSES, stem=STEM)
    x = torch.zeros(n, 3, size, size)
    counter = FlopCounterMode(display=False)
    with counter:
        model(x).sum().backward()
    counts = {str(name): count / 1e9 for name, count in counter.get_flop_counts()["Global"].items()}
    return counts["aten.convolution"], counts["aten.convolution_backward"]


@pytest.fixture(scope="module")
def engine_single():
    """With the native helper."""
    with Engine("single", heap=2 * 2**30) as engine:
        yield engine


@pytest.mark.parametrize("name", ["engine", pytest.param("engine_single", marks=pytest.mark.long)])
@pytest.mark.parametrize(
    ("depth", "size", "n"), [pytest.param(18, 64, 4, marks=pytest.mark.long), (50, 32, 3)]
)
def test_operations_are_those_that_pytorch_counts(request, tmp_path, name, depth, size, n):
    table, _ = profiled(request.getfixturevalue(name), tmp_path, depth, size, n)
    gflop = table.groupby("pass")["gflop"].sum()
    forward, backward = torch_gflop(depth, size, n)
    table = table[table["layer"] != "fc"]
    moments = table[table["function"] == "product.gram"]
    assert gflop["forward"] - moments["gflop"].sum() == pytest.approx(forward)
    products = table[table["pass"] == "backward"]
    # where norms come from moments, products with their filters and of these
    small = 0.02 * backward if len(moments) else 0
    assert products["gflop"].sum() == pytest.approx(backward, rel=1e-6, abs=small)


@pytest.mark.long
def test_every_layer_has_its_rows_and_the_seconds_add_up(engine, tmp_path):
    table, lines = profiled(engine, tmp_path, 18, 32, 4)
    assert lines[0].startswith(f"profile: {tmp_path / 'profile.csv'} and profile.png; ")
    convolutions = [
        name.removesuffix(".weight")
        for name, parameter in TorchResNet(18, CLASSES, stem=STEM).named_parameters()
        if parameter.ndim == 4
    ]
    assert set(table["layer"]) == {*convolutions, "maxpool", "fc", "step"}
    for layer in convolutions:
        rows = table[table["layer"] == layer]
        gated = layer.endswith("conv1")  # by a ReLU of their own
        for phase, function in [
            ("forward", "conv2d.forward" if "downsample" in layer else "conv2d.windows_forward"),
            ("forward", "pixelwise.moments"),
            ("backward", "product.left_transposed"),
            ("backward", "pixelwise.relu_dots" if gated else "pixelwise.dots"),
        ]:
            found = rows[(rows["pass"] == phase) & (rows["function"] == function)]
            assert list(found["calls"]) == [1], (layer, function)
    rows = table[table["pass"] == "update"]
    assert set(rows["layer"]) == {"step"}
    sums = rows[rows["function"] == "pixelwise.weighted_sum"]["calls"]
    # velocities, weights and running statistics
    assert list(sums) == [2 * (3 * len(convolutions) + 2) + 2 * len(convolutions)]
    assert (table["seconds"] >= 0).all()
    assert table[table["function"] == "outside functions"]["seconds"].item() < 0.5 * table["seconds"].sum()
    assert (tmp_path / "profile.png").read_bytes().startswith(b"\x89PNG")


def test_work_of_a_step_does_not_grow(engine, tmp_path):
    """Counted, not timed: what a change adds to a step, it adds here first."""
    table, _ = profiled(engine, tmp_path, 50, 64, 2)
    assert table["calls"].sum() <= 2192
    assert table["gflop"].sum() <= 4.0
    assert table["gigabytes"].sum() <= 2.92


def test_nothing_is_compiled_while_a_step_runs(engine, tmp_path):
    compiled = engine._jvm.org.apache.sysds.utils.stats.RecompileStatistics.getRecompiledSBDAGs
    connections = engine._programs.connections.values()
    for connection in connections:
        connection.setStatistics(True)
    try:
        before = compiled()
        profiled(engine, tmp_path, 18, 32, 2)
        assert compiled() == before
        # what the engine does of itself, to see that it counts
        program = "Y = X\nfor (i in 1:3) { Y = Y[, 1:(ncol(Y)-1)] %*% t(Y[, 2:ncol(Y)]) }"
        engine.run(Program(program, {"Y": "matrix"}, "plain"), {"X": np.ones((9, 9))})
        assert compiled() > before
    finally:
        for connection in connections:
            connection.setStatistics(False)


def test_functions_are_themselves_again_afterwards(engine):
    program = (
        'source("dml/network/seeds.dml") as seeds\nif (x > 0) { y = seeds::derive(x, 1, 2) } else { y = 0 }'
    )
    expected = engine.run(program, {"x": 3}, {"y": "int"})
    with engine.record() as calls:
        assert engine.run(program, {"x": 3}, {"y": "int"}) == expected
    recorded = len(calls)
    assert engine.run(program, {"x": 3}, {"y": "int"}) == expected
    assert len(calls) == recorded


def test_calls_become_rows():
    """Two units, one step: the seconds of a function are without those that it calls."""
    matrix = Matrix(100, 20, 16_000)
    multiply = {"P": matrix, "W": Matrix(20, 30, 4_800), "out": Matrix(100, 30, 24_000)}
    second = 10**9
    calls = [
        Call("conv2d.forward", 1 * second, 2 * second, multiply),
        Call("unit.train", 0, 3 * second, {"P": matrix, "u": "1"}),
        Call("pixelwise.norm_relu", 3 * second, 4 * second, {"X": matrix}),
        Call("unit.train", 5 * second, 6 * second, {"P": matrix, "u": "2"}),
        Call("network.forward_train", 0, 7 * second, {}),
        Call("pixelwise.relu_backward", 8 * second, 9 * second, {"X": matrix}),
        Call("unit.backward", 9 * second, 10 * second, {"u": "2"}),
        Call("backward.backward_upper", 8 * second, 10 * second, {}),
        Call("sgd.update", 10 * second, 11 * second, {"W": matrix}),
        Call("optimizer.update", 10 * second, 12 * second, {}),
    ]
    table = tabulate([calls], [13.0], ["stem", "second", "fc"]).set_index(["layer", "pass", "function"])
    assert table["seconds"].to_dict() == {
        ("step", "forward", "network.forward_train"): 2.0,
        ("stem", "forward", "unit.train"): 2.0,
        ("stem", "forward", "conv2d.forward"): 1.0,
        ("stem", "forward", "pixelwise.norm_relu"): 1.0,
        ("second", "forward", "unit.train"): 1.0,
        ("step", "backward", "backward.backward_upper"): 0.0,
        ("second", "backward", "pixelwise.relu_backward"): 1.0,
        ("second", "backward", "unit.backward"): 1.0,
        ("step", "update", "optimizer.update"): 1.0,
        ("step", "update", "sgd.update"): 1.0,
        ("step", "", "outside functions"): 2.0,
    }
    assert table.loc[("stem", "forward", "conv2d.forward"), "gflop"] == pytest.approx(2e-9 * 100 * 20 * 30)
    assert table.loc[("stem", "forward", "conv2d.forward"), "gb_per_s"] == pytest.approx(44_800 / 1e9)
    assert table["kind"].value_counts().to_dict() == {"other": 7, "multiply": 1, "pass": 2, "update": 1}


@pytest.mark.long
def test_a_run_writes_its_profile(tmp_path, capfd):
    out = tmp_path / "run"
    outcome = run_here(
        capfd,
        *("train", "--dataset", "synthetic", "--num-images", 12, "--num-classes", 3, "--model", "resnet18"),
        *("--batch-size", 4, "--epochs", 1, "--profile", 2, "--heap", "900m", "--out", out),
    )
    assert outcome.code == 0, outcome
    assert f"profile: {out / 'profile.csv'} and profile.png; " in outcome.out
    table = pd.read_csv(out / "profile.csv")
    # of 1x1, and of others
    convolutions = table["function"].isin(["conv2d.forward", "conv2d.windows_forward"])
    assert table[convolutions]["calls"].sum() == 20


def test_more_steps_than_there_are_cannot_be_profiled(tmp_path, capfd):
    outcome = run_here(
        capfd,
        *("train", "--dataset", "synthetic", "--num-images", 12, "--model", "resnet18", "--batch-size", 4),
        *("--epochs", 1, "--profile", 3, "--heap", "900m", "--out", tmp_path / "run"),
    )
    assert_one_line_error(outcome, "profile: found 3 for a run of 3 steps, expected fewer than that")
