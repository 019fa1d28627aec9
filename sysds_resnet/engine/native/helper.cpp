// Matrix multiplies and convolutions in FP32 or bf16 for SystemDS, in the place of its OpenBLAS helper.
//
// SystemDS hands FP64 arrays to whatever library it finds on the class path as
// lib/libsystemds_openblas-Linux-x86_64.so (org.apache.sysds.utils.NativeHelper). Its own helper multiplies
// in FP64, or in FP32 after the engine has copied everything to FP32 and back in Java. This one converts
// block by block while the values are in the caches, multiplies with oneDNN, and sums in FP32. The package's own
// operators give it FP32 arrays, which it uses in place (sconv2dBiasAddDense, below).
// https://github.com/apache/systemds/blob/3.4.0-rc2/src/main/java/org/apache/sysds/utils/NativeHelper.java
//
// The environment variable SYSDS_RESNET_PRECISION says which values are multiplied: "bf16" or "single" (the default).
// Sums of products are FP32 in both, and tsmm, from which norms get their variances, multiplies FP32 in both.
//
// All matrices are row-major. Functions on FP64 return the number of values other than 0, as the engine expects.
// This file has the functions that the engine calls; the rest is in the headers that it includes: jni.h (arrays of the
// JVM), errors.h (failures, threads), values.h (memory and conversions), onednn.h, multiply.h, convolution.h
// (the engine's layout), pixel_major.h (the layout of this package's operators) and passes.h (what stands between).

#include <optional>

#include "convolution.h"
#include "errors.h"
#include "jni.h"
#include "multiply.h"
#include "pixel_major.h"
#include "pool.h"

using namespace helper;

namespace {

// Computes a result. If that fails, its values are set to 0 again, because the engine's Java code, which then takes
// over, adds to what is there.
template <typename Work>
int64_t into(double *result, long cells, Work work) {
    try {
        return work();
    } catch (...) {
        std::memset(result, 0, cells * sizeof *result);
        throw;
    }
}

// Runs the work of a call by the engine itself, which knows -1 as the only code of a failure.
template <typename Work>
int64_t for_engine(int32_t threads, Work work) {
    return std::max(guarded(threads, work), int64_t(kFailed));
}

// Gives the type of the values in an array of floats: bf16, in pairs, where there are fewer floats than values. To be
// called before any array is pinned.
Type type_of(JniEnv *env, Array array, long cells) {
    return array && env->GetArrayLength(array) < cells ? Type::bf16 : Type::f32;
}

template <typename Value>
void run_pool(const pool::Sizes &of, const void *first, const void *second, const void *third, void *result) {
    auto *values = static_cast<const Value *>(first);
    if (!second || !third) return pool::forward(of, values, static_cast<Value *>(result));
    pool::backward(of, values, static_cast<const Value *>(second), static_cast<const Value *>(third),
                   static_cast<Value *>(result));
}

// Gives the FP64 value with these bits.
double joined(int32_t low, int32_t high) {
    uint64_t bits = uint32_t(low) | uint64_t(uint32_t(high)) << 32;
    double value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

// Runs a pass over values (N x C) of so many bytes each, or a max pool. Its operands may be missing. The third array
// holds the rows of a pass that takes some; rows and sums are FP64 in arrays of floats. `numbers` are those of a pass
// that takes some.
int64_t run_pass(JniEnv *env, int32_t number, Object first, Object second, Object third, Object ret,
                 const pool::Sizes &sizes, int32_t bytes, const double *numbers) {
    long N = sizes.N, C = sizes.C;
    check_cells({N, sizes.H, sizes.W, C});
    Object objects[] = {ret, first, second, third};
    Array arrays[4];
    for (int i = 0; i < 4; i++) arrays[i] = wrapped(env, objects[i]);
    std::optional<Floats> pinned[4];
    for (int i = 0; i < 4; i++)
        if (arrays[i]) pinned[i].emplace(env, arrays[i], i == 0);
    auto data = [&](int i) { return pinned[i] ? pinned[i]->data : nullptr; };
    if (!data(0) || (number >= passes::kSums && !data(1))) throw Failure(kWrongSizes, "found no array for a pass");
    if (number == passes::kPool || number == passes::kPoolBackward) {
        auto *work = bytes == 2 ? run_pool<uint16_t> : run_pool<float>;
        work(sizes, data(1), data(2), data(3), data(0));
        return 0;
    }
    passes::Operands of{data(0), data(1), data(2), data(3), nullptr, C, N * C};
    if (number < passes::kWeightedSum) {
        of.rows = static_cast<const double *>(of.c);
        of.c = nullptr;
    } else if (number < passes::kSums) {
        of.rows = numbers;
        of.columns = 1;
    }
    if (of.cells) bytes == 2 ? passes::run<passes::Pairs>(number, of) : passes::run<passes::Singles>(number, of);
    return 0;
}

}  // namespace

#define NATIVE(type, name) \
    extern "C" __attribute__((visibility("default"))) type Java_org_apache_sysds_utils_NativeHelper_##name

NATIVE(void, setMaxNumThreads)(JniEnv *, Class, int32_t) {}  // each call brings its own number of threads

// ret (m x n) = first (m x k) %*% second (k x n)
NATIVE(int64_t, dmmdd)(JniEnv *env, Class, Array first, Array second, Array ret, int32_t m, int32_t k, int32_t n,
                       int32_t threads) {
    return for_engine(threads, [&] {
        check_product(m, k, n);
        Doubles A(env, first), B(env, second), C(env, ret, true);
        return into(C.data, long(m) * n,
                    [&] { return multiply(kPrecision, fp64(A.data), fp64(B.data), fp64(C.data), m, k, n); });
    });
}

// ret (n x n) = t(X) %*% X, or (m x m) = X %*% t(X), of X (m x n)
NATIVE(int64_t, tsmm)(JniEnv *env, Class, Array first, Array ret, int32_t m, int32_t n, uint8_t left,
                      int32_t threads) {
    return for_engine(threads, [&] {
        long size = left ? n : m;
        check_product(size, left ? m : n, size);
        Doubles X(env, first), C(env, ret, true);
        return into(C.data, size * size, [&] {
            if (left) return multiply_sums(Type::f32, fp64(X.data), true, fp64(X.data), fp64(C.data), n, m, n);
            return multiply_rows(Type::f32, fp64(X.data), fp64(X.data), true, fp64(C.data), m, n, m);
        });
    });
}

#define SHAPE_PARAMETERS                                                                                    \
    int32_t N, int32_t C, int32_t H, int32_t W, int32_t K, int32_t R, int32_t S, int32_t stride_h,           \
        int32_t stride_w, int32_t pad_h, int32_t pad_w, int32_t P, int32_t Q, int32_t threads
#define SHAPE Convolution{N, C, H, W, K, R, S, stride_h, stride_w, pad_h, pad_w, P, Q}

NATIVE(int64_t, conv2dDense)(JniEnv *env, Class, Array input, Array filter, Array ret, SHAPE_PARAMETERS) {
    return for_engine(threads, [&] {
        auto shape = checked(SHAPE);
        Doubles X(env, input), F(env, filter), out(env, ret, true);
        return into(out.data, size_of(shape.output()), [&] { return forward(shape, X.data, F.data, out.data); });
    });
}

NATIVE(int64_t, dconv2dBiasAddDense)(JniEnv *env, Class, Array input, Array bias, Array filter, Array ret,
                                     SHAPE_PARAMETERS) {
    return for_engine(threads, [&] {
        auto shape = checked(SHAPE);
        Doubles X(env, input), b(env, bias), F(env, filter), out(env, ret, true);
        return into(out.data, size_of(shape.output()), [&] {
            forward(shape, X.data, F.data, out.data);
            return add_bias(shape, b.data, out.data);
        });
    });
}

NATIVE(int64_t, conv2dBackwardFilterDense)(JniEnv *env, Class, Array input, Array dout, Array ret,
                                           SHAPE_PARAMETERS) {
    return for_engine(threads, [&] {
        auto shape = checked(SHAPE);
        Doubles X(env, input), D(env, dout), dF(env, ret, true);
        return into(dF.data, size_of(shape.filter()),
                    [&] { return backward_filter(shape, X.data, D.data, dF.data); });
    });
}

NATIVE(int64_t, conv2dBackwardDataDense)(JniEnv *env, Class, Array filter, Array dout, Array ret,
                                         SHAPE_PARAMETERS) {
    return for_engine(threads, [&] {
        auto shape = checked(SHAPE);
        Doubles F(env, filter), D(env, dout), dX(env, ret, true);
        return into(dX.data, size_of(shape.input()), [&] { return backward_data(shape, F.data, D.data, dX.data); });
    });
}

// The function that the package's own operators call (Native.java, Pass.java and Pool.java in engine/operators/), on
// pixel-major arrays. The engine itself calls it only in its single precision, which is never switched on with this
// helper.
//
// The operands are images (N*H*W x C), the gradient wrt the outputs (N*P*Q x K) and filters (R*S*C x K), and which of
// them is null says what is computed: without filters the gradient wrt the filters, without images the gradient wrt
// the images, and without a gradient the outputs. With images alone it is t(X) * X, which is multiplied in no less than
// their own type. With all three it is a product of two matrices side by side (multiply_joined): the gradient
// (N*H*W x K) and the images, times the transpose of filters that are (C x K + C + 1).
//
// With R = -1 it is the pass of number S instead, over matrices (N x C) or the images, whose values have stride_h
// bytes; a max pool has windows of size K and the stride stride_w. The numbers of a pass are FP64 values whose bits
// lie, the lower ones first, in K and stride_w, in pad_h and pad_w, and in P and Q (run_pass).
//
// Filters and gradients wrt them are FP32. Other arrays are FP32, or have fewer floats than values and hold bf16 values
// in pairs (engine/operators/Storage.java). The function returns 0, or on failure one of the codes in errors.h.
NATIVE(int64_t, sconv2dBiasAddDense)(JniEnv *env, Class, Object input, Object gradient, Object filter, Object ret,
                                     SHAPE_PARAMETERS) {
    return guarded(threads, [&]() -> int64_t {
        if (R == -1) {
            double numbers[] = {joined(K, stride_w), joined(pad_h, pad_w), joined(P, Q)};
            return run_pass(env, S, input, gradient, filter, ret, {N, C, H, W, K, stride_w}, stride_h, numbers);
        }
        auto shape = checked(SHAPE);
        bool is_multiply = shape.is_multiply();
        Array images = wrapped(env, input), dout = wrapped(env, gradient), filters = wrapped(env, filter);
        Array result = wrapped(env, ret);
        if (!images && !(dout && filters)) throw Failure(kWrongSizes, "found no two of three operands");
        bool has_filters = filters, has_gradient = dout;
        bool of_images = has_gradient && has_filters, of_filters = images && !has_filters;
        Type image_type = type_of(env, images, size_of(shape.input()));
        Type gradient_type = type_of(env, dout, size_of(shape.output()));
        Type type = of_filters ? Type::f32 : type_of(env, result, size_of(of_images ? shape.input() : shape.output()));
        Floats pinned(env, result, true);
        Values out{pinned.data, type};
        if (!has_gradient) {
            Floats x(env, images);
            Values X{x.data, image_type};
            if (!has_filters) {
                if (!is_multiply) throw Failure(kWrongSizes, "found windows of what is multiplied with itself");
                check_product(C, N, C);
                multiply_sums(image_type, X, true, X, out, C, N, C);
                return 0;
            }
            Floats F(env, filters);
            pixel_major::forward(shape, X, F.data, out);
        } else if (images) {
            Floats x(env, images), d(env, dout);
            Values X{x.data, image_type}, D{d.data, gradient_type};
            if (has_filters) {
                if (!is_multiply) throw Failure(kWrongSizes, "found windows of two images side by side");
                Floats F(env, filters);
                multiply_joined(kPrecision, D, X, F.data, out, N, K, C);
            } else {
                pixel_major::backward_filter(shape, X, D, pinned.data);
            }
        } else {
            Floats d(env, dout), F(env, filters);
            Values D{d.data, gradient_type};
            pixel_major::backward_data(shape, F.data, D, out);
        }
        return 0;
    });
}
