"""The registry, plans and the exchange of weights in DML, against PyTorch's networks."""

import numpy as np
import pytest
import torch
from dml_runner import assert_close, to_engine
from narrow import narrow_resnet
from reference import ResNet, arrays, gathered

from sysds_resnet.errors import UserError

REGISTRY = (
    'source("dml/network/registry.dml") as reg\nregistry = reg::describe(depth, channels, num_classes)\n'
)
DEPTHS = [18, 34, 50, 101, 152]
ROLES = {
    "conv_weight": 1,
    "norm_scale": 2,
    "norm_shift": 3,
    "running_mean": 4,
    "running_var": 5,
    "fc_weight": 6,
    "fc_bias": 7,
}


def role(name, array):
    *_, last = name.split(".")
    if name.startswith("fc"):
        return ROLES[f"fc_{last}"]
    if last.startswith("running"):
        return ROLES[last]
    return ROLES["conv_weight" if array.ndim == 4 else {"weight": "norm_scale", "bias": "norm_shift"}[last]]


@pytest.mark.parametrize(
    ("depth", "channels", "num_classes"), [*((depth, 3, 10) for depth in DEPTHS), (50, 1, 1000)]
)
def test_tensors_are_those_of_a_state_dict(quick_dml, depth, channels, num_classes):
    names, tensors = quick_dml(
        REGISTRY
        + """source("dml/network/names.dml") as names
        tensors = as.matrix(registry["tensors"])
        keys = ""
        for (t in 1:nrow(tensors)) {
          key = names::name(registry, t)
          keys = keys + key + " "
        }
        """,
        "keys:string tensors",
        depth=depth,
        channels=channels,
        num_classes=num_classes,
    )
    with torch.device("meta"):
        state = ResNet(depth, num_classes, channels).state_dict()
    expected = {n: t for n, t in state.items() if not n.endswith("num_batches_tracked")}
    assert names.split() == list(expected)
    shapes = [to_engine(np.empty(tensor.shape)).shape for tensor in expected.values()]
    assert [tuple(row) for row in tensors[:, 2:4].astype(int)] == shapes
    assert tensors[:, 0].astype(int).tolist() == [role(n, t) for n, t in expected.items()]


@pytest.mark.parametrize("depth", DEPTHS)
def test_units_are_the_convolutions_of_the_network(quick_dml, depth):
    check_units(quick_dml, depth)


def test_units_do_not_depend_on_the_way_that_programs_run(dml):
    check_units(dml, 50)


def check_units(dml, depth):
    blocks, units, tensors = dml(
        REGISTRY
        + """blocks = as.matrix(registry["blocks"])
        units = as.matrix(registry["units"])
        tensors = as.matrix(registry["tensors"])
        """,
        "blocks units tensors",
        depth=depth,
        channels=3,
        num_classes=10,
    )
    with torch.device("meta"):
        model = ResNet(depth, 10)
    convolutions = [
        (m.kernel_size[0], m.stride[0], m.in_channels, m.out_channels)
        for m in model.modules()
        if isinstance(m, torch.nn.Conv2d)
    ]
    assert [tuple(row) for row in units[:, 1:5].astype(int)] == convolutions
    stages = [len(getattr(model, f"layer{stage}")) for stage in (1, 2, 3, 4)]
    assert np.flatnonzero(blocks[:, 3]).tolist() == (np.cumsum(stages) - 1).tolist()
    residual = [block for stage in (1, 2, 3, 4) for block in getattr(model, f"layer{stage}")]
    first = 2  # the stem is unit 1
    for row, block in zip(blocks.astype(int), residual, strict=True):
        down = 0 if block.downsample is None else first + block.size
        assert row[:3].tolist() == [first, block.size, down]
        first += block.size + (down > 0)
    for u, row in enumerate(units.astype(int), start=1):
        assert tensors[row[6] - 1, :2].tolist() == [1, u]
        inside = np.flatnonzero((blocks[:, 0] <= u) & (u > 1))
        assert row[0] == (inside[-1] + 1 if u > 1 else 0)


@pytest.mark.parametrize("depth", [0, 20, 51])
def test_other_depths_are_refused(quick_dml, depth):
    with pytest.raises(UserError, match=f"depth: found {depth}, expected 18, 34, 50, 101 or 152"):
        quick_dml(REGISTRY + "n = length(registry)\n", "n:int", depth=depth, channels=3, num_classes=10)


WITHOUT_TRANSPOSE = (1, 5, 8, 11, 14)  # the stem's, and the ones that keep the size


def gathers_of(size):
    """What PyTorch gathers in a ResNet on images of this (N, H, W), by slot; and the last block's size."""

    def halve(size):
        return (size[0], *((s - 1) // 2 + 1 for s in size[1:]))

    slots = {1: gathered(size, 7, 2, 3)}
    size = halve(size)
    slots[2] = gathered(size, 3, 2, 1)
    size = halve(size)
    slots[5] = gathered(size, 3, 1, 1)
    for slot in (7, 10, 13):
        slots[slot] = gathered(size, 3, 2, 1)
        slots[slot + 2] = gathered(size, 1, 2, 0)
        size = halve(size)
        slots[slot + 1] = gathered(size, 3, 1, 1)
    return slots, size


@pytest.mark.parametrize(
    ("size", "backward"), [((2, 32, 32), True), ((1, 37, 51), True), ((1, 64, 33), False)]
)
def test_gather_matrices_follow_the_network(dml, size, backward):
    count = 30 if backward else 15
    program = 'source("dml/network/plan.dml") as plan\n'
    program += "[gathers, transposes] = plan::matrices(N, H, W, backward)\n"
    for i in range(count):
        kind, place = ("gathers", i + 1) if i < 15 else ("transposes", i - 14)
        program += f"G = as.matrix({kind}[{place}])\n" + ("G = t(G)\n" if i >= 15 else "")
        # the matrices are large and sparse: a product tells the columns, the sum that there is but one a row
        program += f"ones{i} = as.matrix(sum(G))\nlargest{i} = as.matrix(max(G))\n"
        program += f"columns{i} = G %*% seq(1, ncol(G))\n"
    program += "mean = as.matrix(gathers[3])\nlengths = cbind(as.matrix(length(gathers)), "
    program += "as.matrix(length(transposes)))\n"
    names = [f"ones{i} largest{i} columns{i}" for i in range(count)]
    outputs = " ".join(["lengths mean", *names])
    lengths, mean, *found = dml(program, outputs, N=size[0], H=size[1], W=size[2], backward=backward)
    slots, (n, *last) = gathers_of(size)
    pixels = last[0] * last[1]
    assert_close(mean, np.kron(np.eye(n), np.full((1, pixels), 1 / pixels)))
    assert lengths.tolist() == [[15, 15 if backward else 0]]
    for i in range(count):
        ones, largest, columns = found[3 * i : 3 * i + 3]
        slot = i % 15 + 1
        if i >= 15 and slot in WITHOUT_TRANSPOSE:
            assert columns.tolist() == [[0]]
        elif slot in slots:
            expected = slots[slot]
            assert_close(columns, expected, 1e-290)  # two entries of 1e-300 are there for the engine
            assert ones == (expected > 0).sum() and largest == 1


def convolutions_of(depth, height, width):
    """[channels, height, width, filters, kernel, stride] of PyTorch's convolutions, as registered."""
    with torch.device("meta"):
        network = ResNet(depth, 10, 3)
        convolutions = [module for module in network.modules() if isinstance(module, torch.nn.Conv2d)]
        found = {}
        for module in convolutions:
            module.register_forward_pre_hook(
                lambda module, inputs: found.update({module: inputs[0].shape[1:]})
            )
        network(torch.zeros(2, 3, height, width))
    return [[*found[c], c.out_channels, c.kernel_size[0], c.stride[0]] for c in convolutions]


@pytest.mark.parametrize("channel_major", [False, True])
@pytest.mark.parametrize(("depth", "height", "width"), [(18, 32, 32), (50, 37, 51)])
def test_plans_know_the_shape_of_every_unit(quick_dml, depth, height, width, channel_major):
    program = (
        REGISTRY
        + """source("dml/network/plan.dml") as plan
        if (channel_major) {
          registry = reg::channel_major(registry)
        }
        p = plan::build(registry, 2, H, W, FALSE, FALSE)
        n = plan::units(p)
        shapes = matrix(0, rows=n, cols=6)
        for (u in 1:n) {
          [C, h, w, F, K, stride] = plan::unit(p, u)
          shapes[u,1] = C
          shapes[u,2] = h
          shapes[u,3] = w
          shapes[u,4] = F
          shapes[u,5] = K
          shapes[u,6] = stride
        }
        """
    )
    sizes = {"depth": depth, "channels": 3, "num_classes": 10, "H": height, "W": width}
    shapes = quick_dml(program, "shapes", channel_major=channel_major, **sizes)
    assert shapes.tolist() == convolutions_of(depth, height, width)


EXCHANGE = """
source("dml/network/weights.dml") as weights
written = weights::filters_to_torchvision(W, K)
read = weights::filters_from_torchvision(written, K)
"""


@pytest.mark.parametrize(("kernel", "channels", "filters"), [(1, 5, 2), (3, 4, 6), (7, 3, 2)])
def test_filters_are_exchanged_in_torchvisions_order(dml, kernel, channels, filters):
    tensor = np.random.default_rng(0).standard_normal((filters, channels, kernel, kernel))
    written, read = dml(EXCHANGE, "written read", W=to_engine(tensor), K=kernel)
    assert np.array_equal(written, tensor.reshape(filters, -1))
    assert np.array_equal(read, to_engine(tensor))


@pytest.mark.parametrize("name", ROLES)
def test_roles_have_numbers(quick_dml, name):
    number = quick_dml(f'source("dml/network/registry.dml") as reg\nn = reg::role("{name}")\n', "n:int")
    assert number == ROLES[name]


def test_a_role_that_is_none_is_refused(quick_dml):
    with pytest.raises(UserError, match="role: found bias, expected one of those in registry"):
        quick_dml('source("dml/network/registry.dml") as reg\nn = reg::role("bias")\n', "n:int")


WEIGHTS = 'source("dml/network/weights.dml") as weights\n'
SIZE = {"depth": 18, "channels": 2, "num_classes": 5}


@pytest.fixture(scope="module")
def packed(engine):
    """A model's tensors behind each other in torchvision's layout, and as a list in the engine's."""
    state = {
        n: a
        for n, a in arrays(narrow_resnet(18, num_classes=5, channels=2)).items()
        if "num_batches" not in n
    }
    model = engine.make_list([engine.from_numpy(to_engine(a)) for a in state.values()])
    return np.concatenate([a.reshape(-1) for a in state.values()])[:, None], model


def test_pack_puts_tensors_behind_each_other(engine, packed):
    values, model = packed
    program = REGISTRY + WEIGHTS + "tensors = weights::pack(model, registry)\n"
    tensors = engine.run(program, {"model": model, **SIZE}, {"tensors": "matrix"})["tensors"]
    assert np.array_equal(engine.to_numpy(tensors), values)


LOAD = WEIGHTS + '[model, registry] = weights::load(architecture, tensors, "somewhere")\n'


def test_load_takes_them_apart_exactly(engine, packed):
    values, model = packed
    inputs = {"architecture": np.array([[*SIZE.values()]]), "tensors": values}
    loaded = engine.run(LOAD, inputs, {"model": "list"})["model"]
    for one, other in zip(engine.list_items(loaded), engine.list_items(model), strict=True):
        assert np.array_equal(engine.to_numpy(one), engine.to_numpy(other))


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        ([[0, 0, 0]], "somewhere: found weights that were not written to the end"),
        ([[18, 2]], "somewhere: found weights that were not written to the end"),
        (
            [[18, 2, 6]],
            "somewhere/tensors: found .* x 1 values, expected .* x 1 for ResNet-18 with 2 channels",
        ),
        ([[34, 2, 5]], "somewhere/tensors: found .* for ResNet-34"),
        ([[19, 2, 5]], "depth: found 19"),
    ],
)
def test_weights_that_do_not_fit_are_refused(engine, packed, architecture, message):
    inputs = {"architecture": np.array(architecture, dtype=float), "tensors": packed[0]}
    with pytest.raises(UserError, match=message):
        engine.run(LOAD + "n = length(model)\n", inputs, {"n": "int"})


def test_save_writes_both_files(engine, packed, tmp_path):
    values, model = packed
    program = REGISTRY + WEIGHTS + "weights::save(model, registry, folder)\nn = length(model)\n"
    engine.run(program, {"model": model, "folder": str(tmp_path / "model"), **SIZE}, {"n": "int"})
    for name, expected in (("tensors", values), ("complete", np.array([[*SIZE.values()]]))):
        assert np.array_equal(engine.matrices.read(tmp_path / "model" / name), expected)
