"""Which weights are taken from the folder of a run, and what is said of it."""

import pytest
from small_weights import assert_same, small

from sysds_resnet.network.weights.files import write_weights
from sysds_resnet.network.weights.forms import load_weights


def test_those_of_the_end_are_taken_and_that_is_said_where_there_are_others(folder):
    end, best = small(), {name: array + 1 for name, array in small().items()}
    write_weights(folder / "weights.safetensors", end)
    assert load_weights(folder).notes == []
    write_weights(folder / "best.safetensors", best)
    loaded = load_weights(folder)
    assert_same(loaded.weights, end)
    assert loaded.notes == [
        f"{folder}: took the weights at its end (weights.safetensors); those after its best epoch are "
        f"{folder / 'best.safetensors'}"
    ]


@pytest.mark.parametrize("name", ["weights.safetensors", "best.safetensors"])
def test_nothing_is_said_of_a_file_that_is_named_or_the_only_one(folder, name):
    write_weights(folder / name, small())
    assert load_weights(folder).notes == load_weights(folder / name).notes == []
