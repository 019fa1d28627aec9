"""Fresh weights: torchvision's distributions, independent and reproducible."""

import itertools

import numpy as np
import pytest
import torch
from dml_resnet import DESCRIBE, tensors
from narrow import STEM, narrow_resnet
from reference import ResNet

INIT = (
    DESCRIBE
    + 'source("dml/network/initialization.dml") as initial\n'
    + "model = initial::init(registry, seed, zero_init_residual)\n"
)
NAMES = {depth: list(tensors(ResNet(depth, 10, stem=STEM))) for depth in (18, 50)}


@pytest.fixture(scope="module")
def init(engine):
    """Initial weights by name."""

    def run(depth=18, seed=42, zero_init_residual=False, num_classes=10):
        inputs = {
            "depth": depth,
            "channels": 3,
            "num_classes": num_classes,
            "seed": seed,
            "zero_init_residual": zero_init_residual,
        }
        model = engine.run(INIT, inputs, {"model": "list"})["model"]
        arrays = [engine.to_numpy(block) for block in engine.list_items(model)]
        return dict(zip(NAMES[depth], arrays, strict=True))

    return run


@pytest.fixture(scope="module", params=[18, 50])
def fresh(request, init):
    return request.param, init(request.param)


def test_convolutions_are_he_normal_by_fan_out(fresh):
    depth, weights = fresh
    with torch.device("meta"):
        state = ResNet(depth, 10, stem=STEM).state_dict()
    pooled = []
    for name, tensor in state.items():
        if tensor.ndim != 4:
            continue
        filters, _, height, width = tensor.shape
        sample = weights[name].reshape(-1) / np.sqrt(2 / (filters * height * width))
        assert abs(sample.mean()) < 5 / np.sqrt(sample.size), name
        assert abs(sample.std() - 1) < 5 / np.sqrt(2 * sample.size), name
        pooled.append(sample)
    sample = np.concatenate(pooled)
    for quantile, share in ((-2, 0.02275), (-1, 0.15866), (0, 0.5), (1, 0.84134), (2, 0.97725)):
        assert abs((sample < quantile).mean() - share) < 5 * np.sqrt(share * (1 - share) / sample.size)


def test_final_layer_is_uniform_within_its_fan_in(init):
    weights = init(num_classes=1000)
    bound = (8 * STEM) ** -0.5
    for name in ("fc.weight", "fc.bias"):
        sample = weights[name].reshape(-1) / bound
        assert np.abs(sample).max() <= 1 and np.abs(sample).max() > 1 - 20 / sample.size
        assert abs(sample.mean()) < 5 / np.sqrt(3 * sample.size)
        assert abs(sample.std() - 3**-0.5) < 5 * np.sqrt(1 / 3) / np.sqrt(sample.size)


def test_norms_begin_as_identities(fresh):
    _, weights = fresh
    for name, array in weights.items():
        if name.startswith("fc") or "conv" in name or "downsample.0" in name:
            continue
        value = 1.0 if name.endswith(("weight", "running_var")) else 0.0
        assert (array == value).all(), name


@pytest.mark.parametrize("depth", [18, 50])
def test_blocks_can_begin_as_identities(init, depth):
    weights = init(depth, zero_init_residual=True)
    last = "bn2.weight" if depth == 18 else "bn3.weight"
    for name, array in weights.items():
        if name.endswith(".weight") and ("bn" in name or "downsample.1" in name):
            assert (array == (0.0 if name.endswith(last) else 1.0)).all(), name
    plain = init(depth)
    assert all(np.array_equal(plain[name], weights[name]) for name in weights if not name.endswith(last))


def test_no_two_tensors_or_channels_are_alike(fresh):
    _, weights = fresh
    firsts = [array[0, 0] / array.std() for name, array in weights.items() if "conv" in name]
    assert len({round(value, 9) for value in firsts}) == len(firsts)
    shapes = {}
    for name, array in weights.items():
        if "conv" in name:
            shapes.setdefault(array.shape, []).append(array.reshape(-1))
    for same in shapes.values():
        for one, other in itertools.pairwise(same):
            assert abs(np.corrcoef(one, other)[0, 1]) < 5 / np.sqrt(one.size)
    filters = weights["conv1.weight"]
    correlations = np.corrcoef(filters.T) - np.eye(filters.shape[1])
    assert np.abs(correlations).max() < 6 / np.sqrt(filters.shape[0])


def test_seed_alone_decides(init):
    one, again, other = init(seed=7), init(seed=7), init(seed=8)
    for name, array in one.items():
        assert np.array_equal(array, again[name]), name
        drawn = "conv" in name or "downsample.0" in name or name.startswith("fc")
        assert np.array_equal(array, other[name]) != drawn, name


@pytest.mark.parametrize("seed", [0, 2**31 - 1])
def test_any_seed_will_do(init, seed):
    assert np.std(init(seed=seed)["conv1.weight"]) > 0


def test_shapes_are_those_of_the_reference(fresh):
    depth, weights = fresh
    expected = {name: array.shape for name, array in tensors(narrow_resnet(depth, 10)).items()}
    assert {name: array.shape for name, array in weights.items()} == expected
