"""Bugs of SystemDS 3.4.0 that this project works around.

Each test asserts that its bug is still there. When one fails, the engine has been mended and the workaround
that it names can go.
"""

import numpy as np
import pytest


def mended(workaround):
    return f"SystemDS has been mended: the workaround in {workaround} can go, and then this test"


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def relative_error(actual, expected):
    return np.abs(actual - expected).max() / np.abs(expected).max()


def test_a_row_of_fp32_values_stands_elsewhere_than_it_says(engine):
    """What asks a dense block for the array of a row, and for the row's place in it, gets row and block."""
    block = engine._jvm.org.apache.sysds.runtime.data.DenseBlockFactory
    kind = engine._jvm.org.apache.sysds.common.Types.ValueType.FP32
    sizes = engine._gateway.new_array(engine._jvm.int, 2)
    sizes[0], sizes[1] = 3, 2
    values = block.createDenseBlock(kind, sizes)
    assert values.pos(2) == 4
    assert len(values.values(2)) == 2, mended("sysds_resnet/engine/operators/Storage.java (class Floats)")


def test_column_sums_over_rows_are_divided_twice(quick_dml):
    """With two consumers in a block, colSums(X)/nrow(X) becomes a mean that one of them divides again."""
    x = normal(1000, 2) + 2
    mean, var = quick_dml(
        """f = function(matrix[double] X) return (matrix[double] mean, matrix[double] var) {
          m = nrow(X)
          mean = colSums(X)/m
          var = colSums(X^2)/m - mean^2
        }
        [mean, var] = f(X)
        """,
        "mean var",
        X=x,
    )
    wrong = relative_error(mean, x.mean(0)) > 0.1 or relative_error(var, x.var(0)) > 0.1
    assert wrong, mended("statistics of dml/layers/pixels/batch_norm2d.dml (a block of its own)")


def test_scalar_that_a_loop_updates_by_a_function_alone_is_taken_for_a_constant(quick_dml):
    """If the function is small enough to be inlined and the first value is a literal."""
    sizes = quick_dml(
        """half = function(int s) return (int o) {
          o = as.integer(floor((s - 1)/2)) + 1
        }
        f = function(int H) return (matrix[double] sizes) {
          h = half(H)
          sizes = matrix(0, rows=1, cols=3)
          for (i in 1:3) {
            h = half(h)
            sizes[1,i] = h
          }
        }
        sizes = f(64)
        """,
        "sizes",
    )
    assert sizes.tolist() != [[16, 8, 4]], mended("dml/network/plan.dml (sizes without a function)")


def test_batch_norm_on_the_cpu_forgets_the_variance(quick_dml):
    """The builtin moves the running variance towards the batch's mean."""
    x = normal(8, 3 * 4) * 2 + 1
    ema_mean, ema_var = quick_dml(
        """ones = matrix(1, rows=3, cols=1)
        zeros = matrix(0, rows=3, cols=1)
        [out, ema_mean, ema_var, m, v] = batch_norm2d(X, ones, zeros, zeros, ones, "train", 0.00001, 0.9)
        out_sum = sum(out) + sum(m) + sum(v)
        """,
        "ema_mean ema_var",
        X=x,
    )
    channels = x.reshape(8, 3, 4)
    mean, var = channels.mean((0, 2)), channels.var((0, 2))
    assert relative_error(ema_mean[:, 0], 0.1 * mean) < 1e-12
    unbiased = var * 32 / 31
    wrong = min(relative_error(ema_var[:, 0], 0.9 + 0.1 * v) for v in (var, unbiased)) > 0.01
    assert wrong, mended("dml/layers/pixels/batch_norm2d.dml (in place of the builtin batch_norm2d)")
    assert relative_error(ema_var[:, 0], 0.9 + 0.1 * mean) < 1e-12


def test_expression_assigned_to_a_list_element_does_not_compile(quick_dml):
    def add(assignment):
        return quick_dml(f"L = list(A, B)\n{assignment}\nsum = as.matrix(L[1])\n", "sum", A=a, B=a)

    a = normal(2, 2)
    assert np.array_equal(add("S = A + B\nL[1] = S"), a + a)
    try:
        add("L[1] = A + B")
    except RuntimeError:
        return
    pytest.fail(
        mended("add of dml/optim/tensors.dml, and dml/network/backward.dml (variables for expressions)")
    )


def test_max_pool_backward_loses_gradients_where_windows_overlap(quick_dml):
    """Of several windows with one maximum only the last one's gradient arrives."""
    x = np.zeros((1, 25))
    x[0, 12] = 1.0  # the centre of 5 x 5 pixels, in all four windows
    d_x = quick_dml(
        """d_x = max_pool_backward(X, dout, input_shape=[1,1,5,5], pool_size=[3,3], stride=[2,2],
                                   padding=[0,0])
        """,
        "d_x",
        X=x,
        dout=np.array([[1.0, 2.0, 4.0, 8.0]]),
    )
    assert d_x[0, 12] != 15.0, mended("dml/layers/pixels/max_pool2d.dml (in place of the builtins)")


def test_function_that_only_stops_is_dropped(quick_dml):
    """Dead code elimination counts print and write as effects, but not stop."""
    passed = quick_dml(
        """check = function(matrix[double] y) {
          if (max(y) > 3) {
            stop("too large")
          }
        }
        check(y)
        passed = 1
        """,
        "passed:int",
        y=np.array([[5.0]]),
    )
    assert passed == 1, mended("check_labels of dml/training/data.dml (gives its input back)")


def test_a_product_of_comparisons_counts_its_values_once_for_each_task(engine):
    """And `removeEmpty` with such a selection gives as many rows as it claims, the last of them empty."""
    n = 17000
    product = engine.run("P = (X > 0) * (X >= 0)\n", {"X": np.ones((n, 1))}, {"P": "matrix"})["P"]
    wrong = product.getNonZeros() > n
    assert wrong, mended("windows of dml/layers/pixels/gather.dml (removeEmpty without a selection)")


def test_threads_whose_name_lacks_main_share_no_pool(engine):
    engine.run("x = 1\n", {}, {"x": "int"})  # names the thread that serves this one
    jvm = engine._jvm
    thread = jvm.Thread.currentThread()
    get = jvm.org.apache.sysds.runtime.util.CommonThreadPool.get
    name = thread.getName()
    assert "main" in name
    assert get(3).equals(get(3))
    try:
        thread.setName("worker")
        pools = [get(3), get(3)]
        shared = pools[0].equals(pools[1])
        for pool in pools:
            pool.shutdown()
    finally:
        thread.setName(name)
    assert not shared, mended(
        "sysds_resnet/engine/device.py and engine/gpu/Runner.java (the name of the thread)"
    )


def test_with_openblas_a_transposed_self_product_is_half_empty(engine):
    x = np.random.default_rng(0).random((100, 4))
    product = engine.to_numpy(engine.run("G = t(X) %*% X\n", {"X": x}, {"G": "matrix"})["G"])
    if engine.multiply.library is None:
        pytest.skip("no OpenBLAS here")
    half = np.array_equal(product, np.triu(product))
    assert half, mended("gram of dml/layers/pixels/product.dml (upper.tri)")


def test_a_constant_of_one_call_becomes_that_of_another(engine):
    """What `constant` hands on to `inner` replaces what `variable` does, an expression, and both give 0.5.

    https://github.com/apache/systemds/blob/3.4.0-rc2/src/main/java/org/apache/sysds/hops/ipa/IPAPassPropagateReplaceLiterals.java
    """
    program = """
    inner = function(double share) return (matrix[double] out) {
      while(FALSE){}
      out = matrix(share, rows=1, cols=1)
    }
    constant = function(double share) return (matrix[double] out) {
      out = inner(share)
      while(FALSE){}
    }
    variable = function(double share) return (matrix[double] out) {
      out = inner(1 - share)
      while(FALSE){}
    }
    c = constant(0.5)
    v = variable(x)
    """
    v = engine.to_numpy(engine.run(program, {"x": 0.1}, {"c": "matrix", "v": "matrix"})["v"])
    assert v[0, 0] == 0.5, mended("average_factors of dml/optim/optimizer.dml")


def test_a_list_is_taken_for_a_scalar_if_its_matrix_has_one_element(quick_dml):
    """as.scalar(as.matrix(L[i])) becomes L[i]; sum(X^2) of a 1 x 1 matrix is as.scalar(X)^2."""
    try:
        quick_dml(
            """L = list(matrix(3, rows=1, cols=1), matrix(2, rows=2, cols=2))
            squares = matrix(0, rows=2, cols=1)
            for (i in 1:2) {
              X = as.matrix(L[i])
              squares[i,1] = sum(X^2)
            }
            """,
            "squares",
        )
    except RuntimeError as error:
        assert "does not exist in the symbol table" in str(error)
    else:
        pytest.fail(mended("dml/optim/tensors.dml (norms)"))
