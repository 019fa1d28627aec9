"""The numbers of lists in memory that Python and the JVM both map."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import psutil
import pytest

from sysds_resnet.engine import Engine
from sysds_resnet.errors import EngineDied

RNG = np.random.default_rng(0)
# dense, larger than what is copied at a time, sparse, empty, a number
ARRAYS = [
    RNG.standard_normal((3, 7)),
    RNG.standard_normal((301, 41)),
    np.where(RNG.random((200, 50)) < 0.01, 1.5, 0),
    np.zeros((20, 10)),
    np.array([[2.0]]),
]
TWICE = """
source("dml/optim/tensors.dml") as tensors
twice = tensors::add(list, list)
"""


def joined(arrays):
    return np.concatenate([array.ravel() for array in arrays])


@pytest.mark.parametrize("name", ["engine", "engine_single"])
@pytest.mark.parametrize("single", [False, True])
def test_numbers_of_a_list_are_read_and_replaced(name, single, request):
    engine = request.getfixturevalue(name)
    handle = engine.make_list(ARRAYS)
    mapped = engine.map_list(handle, single)
    mapped.read(handle)
    kind = np.float32 if single else np.float64
    assert mapped.values.dtype == kind
    np.testing.assert_array_equal(mapped.values, joined(ARRAYS).astype(kind))
    changed = RNG.standard_normal(mapped.values.size).astype(np.float32).astype(kind)  # as tensors are
    mapped.values[:] = changed
    mapped.write(handle)
    found = [engine.to_numpy(item) for item in engine.list_items(handle)]
    assert [array.shape for array in found] == [array.shape for array in ARRAYS]
    np.testing.assert_array_equal(joined(found), changed)
    # programs see them too, whatever was known of the matrices before
    twice = engine.run(TWICE, {"list": handle}, {"twice": "list"})["twice"]
    found = [engine.to_numpy(item) for item in engine.list_items(twice)]
    np.testing.assert_array_equal(joined(found), 2 * changed.astype(float))


@pytest.mark.parametrize("threads", [1, 2])
def test_lists_are_mapped_one_after_another_and_at_the_same_time(threads):
    with Engine() as engine:
        handle = engine.make_list(ARRAYS)
        ready = Barrier(threads)

        def mapped(_):
            ready.wait()
            return engine.map_list(handle, False)

        with ThreadPoolExecutor(threads) as pool:
            found = [*pool.map(mapped, range(threads)), engine.map_list(handle, True)]
        for one in found:  # all in this thread, whose connection py4j remembers methods for
            one.read(handle)
            np.testing.assert_allclose(one.values, joined(ARRAYS), rtol=1e-7)


def test_a_mapping_serves_other_lists_of_the_same_shapes(engine):
    first, second = (engine.make_list([factor * array for array in ARRAYS]) for factor in (1, 3))
    mapped = engine.map_list(first, single=False, more=2)
    mapped.values[:2] = 5, 7
    mapped.read(second)
    mapped.write(first)
    np.testing.assert_array_equal(mapped.values, [5, 7, *3 * joined(ARRAYS)])
    found = [engine.to_numpy(item) for item in engine.list_items(first)]
    np.testing.assert_array_equal(joined(found), 3 * joined(ARRAYS))


def test_parts_of_lists_are_read_to_their_places(engine):
    whole = engine.make_list(ARRAYS)
    end = engine.make_list([3 * array for array in ARRAYS[1:]])
    mapped = engine.map_list(whole, single=False, more=2)
    assert mapped.starts.tolist() == [2, *(2 + np.cumsum([array.size for array in ARRAYS]))]
    mapped.values[:] = 0
    mapped.read(end, 1)
    np.testing.assert_array_equal(mapped.values[mapped.starts[1] :], 3 * joined(ARRAYS[1:]))
    assert not mapped.values[: mapped.starts[1]].any()
    mapped.read(whole, n=2)
    np.testing.assert_array_equal(mapped.values[2 : mapped.starts[2]], joined(ARRAYS[:2]))
    np.testing.assert_array_equal(mapped.values[mapped.starts[2] :], 3 * joined(ARRAYS[2:]))


def test_a_jvm_that_has_ended_is_told_as_everywhere():
    before = {one.pid for one in psutil.Process().children()}
    with Engine(heap="512m") as engine:
        [jvm] = [one for one in psutil.Process().children() if one.pid not in before and one.name() == "java"]
        handle = engine.make_list(ARRAYS)
        mapped = engine.map_list(handle, single=False)
        jvm.kill()
        jvm.wait()
        with pytest.raises(EngineDied, match="JVM"):
            mapped.read(handle)
