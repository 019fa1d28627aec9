"""The registry, the geometry and the exchange of weights in DML, against PyTorch's networks."""

import numpy as np
import pytest
import torch
from dml_runner import assert_close, to_engine
from reference import ResNet, arrays, gathered, random_resnet

from sysds_resnet.errors import UserError

REGISTRY = (
    'source("dml/network/registry.dml") as reg\nregistry = reg::describe(depth, channels, num_classes)\n'
)
DEPTHS = [18, 34, 50, 101, 152]
ROLES = {
    "conv weight": 1,
    "norm weight": 2,
    "norm bias": 3,
    "running_mean": 4,
    "running_var": 5,
    "fc weight": 6,
    "fc bias": 7,
}


def role(name, array):
    *_, last = name.split(".")
    if name.startswith("fc"):
        return ROLES[f"fc {last}"]
    if last.startswith("running"):
        return ROLES[last]
    return ROLES[f"{'conv' if array.ndim == 4 else 'norm'} {last}"]


@pytest.mark.parametrize(
    ("depth", "channels", "num_classes"), [*((depth, 3, 10) for depth in DEPTHS), (50, 1, 1000)]
)
def test_tensors_are_those_of_a_state_dict(quick_dml, depth, channels, num_classes):
    names, tensors = quick_dml(
        REGISTRY
        + """tensors = as.matrix(registry["tensors"])
        names = ""
        for (t in 1:nrow(tensors)) {
          name = reg::name(registry, t)
          names = names + name + " "
        }
        """,
        "names:string tensors",
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


def geometry_of(size):
    """Slot by slot what PyTorch does in a ResNet on images of this (N, H, W)."""

    def halve(size):
        return (size[0], *((s - 1) // 2 + 1 for s in size[1:]))

    slots, sizes = {1: gathered(size, 7, 2, 3)}, {1: size}
    size = halve(size)
    slots[2], sizes[2] = gathered(size, 3, 2, 1), size
    size = halve(size)
    slots[5], sizes[5] = gathered(size, 3, 1, 1), size
    for slot in (7, 10, 13):
        slots[slot], sizes[slot] = gathered(size, 3, 2, 1), size
        slots[slot + 2], sizes[slot + 2] = gathered(size, 1, 2, 0), size
        size = halve(size)
        slots[slot + 1], sizes[slot + 1] = gathered(size, 3, 1, 1), size
    return slots, [sizes.get(slot, (0, 0, 0))[1:] for slot in range(1, 16)], size


@pytest.mark.parametrize(
    ("size", "backward"), [((2, 32, 32), True), ((1, 37, 51), True), ((1, 64, 33), False)]
)
def test_geometry_follows_the_network(dml, size, backward):
    count = 30 if backward else 15
    places = [*range(1, 16), *range(17, 32)][:count]  # the sizes stand between
    program = 'source("dml/network/plan.dml") as geo\ngeometry = geo::build(N, H, W, backward)\n'
    for i, place in enumerate(places, start=1):
        program += f"G = as.matrix(geometry[{place}])\n" + ("G = t(G)\n" if i > 15 else "")
        # the matrices are large and sparse: a product tells the columns, the sum that there is but one a row
        program += f"ones{i} = as.matrix(sum(G))\nlargest{i} = as.matrix(max(G))\n"
        program += f"columns{i} = G %*% seq(1, ncol(G))\n"
    program += "mean = as.matrix(geometry[3])\nsizes = as.matrix(geometry[16])\nlength = length(geometry)\n"
    names = [f"ones{i} largest{i} columns{i}" for i in range(1, count + 1)]
    outputs = " ".join(["length:int mean sizes", *names])
    length, mean, sizes, *found = dml(program, outputs, N=size[0], H=size[1], W=size[2], backward=backward)
    slots, expected_sizes, (n, *last) = geometry_of(size)
    pixels = last[0] * last[1]
    assert_close(mean, np.kron(np.eye(n), np.full((1, pixels), 1 / pixels)))
    assert length == count + 1
    assert np.array_equal(sizes, expected_sizes)
    for i in range(count):
        ones, largest, columns = found[3 * i : 3 * i + 3]
        slot = i % 15 + 1
        if i >= 15 and slot in WITHOUT_TRANSPOSE:
            assert columns.tolist() == [[0]]
        elif slot in slots:
            expected = slots[slot]
            assert_close(columns, expected, 1e-290)  # two entries of 1e-300 are there for the engine
            assert ones == (expected > 0).sum() and largest == 1


EXCHANGE = """
source("dml/network/weights.dml") as weights
written = weights::to_torchvision(W, role, K)
read = weights::from_torchvision(written, role, K)
"""


@pytest.mark.parametrize(("kernel", "channels", "filters"), [(1, 5, 2), (3, 4, 6), (7, 3, 2)])
def test_filters_are_exchanged_in_torchvisions_order(dml, kernel, channels, filters):
    tensor = np.random.default_rng(0).standard_normal((filters, channels, kernel, kernel))
    written, read = dml(
        EXCHANGE,
        "written read",
        W=to_engine(tensor),
        role=1.0,
        K=kernel,
    )
    assert np.array_equal(written, tensor.reshape(filters, -1))
    assert np.array_equal(read, to_engine(tensor))


def test_other_tensors_are_exchanged_as_they_are_or_transposed(dml):
    w = np.random.default_rng(0).standard_normal((4, 3))
    for number in ROLES.values():
        if number == 1:
            continue
        written, read = dml(
            EXCHANGE,
            "written read",
            W=w,
            role=float(number),
            K=1,
        )
        assert np.array_equal(written, w.T if number == ROLES["fc weight"] else w)
        assert np.array_equal(read, w)


WEIGHTS = 'source("dml/network/weights.dml") as weights\n'
SIZE = {"depth": 18, "channels": 2, "num_classes": 5}


@pytest.fixture(scope="module")
def packed(engine):
    """A model's tensors behind each other in torchvision's layout, and as a list in the engine's."""
    state = {
        n: a
        for n, a in arrays(random_resnet(18, num_classes=5, channels=2)).items()
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
