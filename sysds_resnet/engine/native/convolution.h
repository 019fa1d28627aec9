// The convolutions behind the engine's builtin functions: in FP64, in the engine's layout (N, C*H*W). Each function
// returns the number of values of its result other than 0.
#pragma once

#include <tuple>

#include "multiply.h"

namespace helper {

// The sizes of a convolution, with the engine's names: N images of C x H x W, K filters of C x R x S, outputs of P x Q.
struct Convolution {
    int32_t N, C, H, W, K, R, S, stride_h, stride_w, pad_h, pad_w, P, Q;

    Dims input() const { return {N, C, H, W}; }
    Dims filter() const { return {K, C, R, S}; }
    Dims output() const { return {N, K, P, Q}; }
    Dims strides() const { return {stride_h, stride_w}; }
    Dims pad_before() const { return {pad_h, pad_w}; }
    Dims pad_after() const {
        return {long(P - 1) * stride_h + R - H - pad_h, long(Q - 1) * stride_w + S - W - pad_w};
    }
    auto key() const {
        return std::tie(N, C, H, W, K, R, S, stride_h, stride_w, pad_h, pad_w, P, Q);
    }
    bool operator<(const Convolution &other) const { return key() < other.key(); }
    // Tells whether it is a multiply of images (N x C) with filters (K x C).
    bool is_multiply() const { return H == 1 && W == 1 && R == 1 && S == 1 && P == 1 && Q == 1; }

};

inline const Convolution &checked(const Convolution &c) {
    check_cells({c.N, c.C, c.H, c.W});
    check_cells({c.K, c.C, c.R, c.S});
    check_cells({c.N, c.K, c.P, c.Q});
    if (c.stride_h < 1 || c.stride_w < 1 || c.pad_h < 0 || c.pad_w < 0)
        throw Failure(kWrongSizes, "found a stride below 1 or a padding below 0");
    return c;
}

inline long size_of(const Dims &dims) { return dims[0] * dims[1] * dims[2] * dims[3]; }

inline Values fp64(const double *values) { return {const_cast<double *>(values), Type::f64}; }

inline dnnl::memory::desc any(const Dims &dims, Type type = kPrecision) { return {dims, type, Tag::any}; }

inline dnnl::convolution_forward::primitive_desc describe_forward(const Convolution &c) {
    return {cpu(), dnnl::prop_kind::forward_training, dnnl::algorithm::convolution_direct, any(c.input()),
            any(c.filter()), any(c.output(), Type::f32), c.strides(), c.pad_before(), c.pad_after(), attributes()};
}

// Runs one of oneDNN's three convolution primitives on two FP64 operands in the engine's layout.
template <typename Primitive, typename Description>
long convolve(const Description &description, int first, const double *a, const Dims &a_dims,
              const dnnl::memory::desc &a_order, int second, const double *b, const Dims &b_dims,
              const dnnl::memory::desc &b_order, int third, double *c, const Dims &c_dims,
              const dnnl::memory::desc &c_order) {
    dnnl::stream stream(cpu());
    auto load = [&](const double *values, const Dims &dims, const dnnl::memory::desc &order, Buffer &buffer) {
        void *plain = operand(fp64(values), buffer, Type::f32, size_of(dims));
        dnnl::memory source({dims, Type::f32, Tag::abcd}, cpu(), plain);
        dnnl::memory target(order, cpu());
        dnnl::reorder(source, target).execute(stream, source, target);
        return target;
    };
    auto a_memory = load(a, a_dims, a_order, scratch.a);
    auto b_memory = load(b, b_dims, b_order, scratch.a);
    long size = size_of(c_dims), nonzeros = 0;
    auto *plain = static_cast<float *>(scratch.b.get(size * 4));
    dnnl::memory c_memory(c_order, cpu()), result({c_dims, Type::f32, Tag::abcd}, cpu(), plain);
    Primitive(description).execute(stream, {{first, a_memory}, {second, b_memory}, {third, c_memory}});
    dnnl::reorder(c_memory, result).execute(stream, c_memory, result);
    stream.wait();
    over_parts(size, [&](long start, long part) {
        long found = give(plain + start, c + start, part);
#pragma omp atomic
        nonzeros += found;
    });
    return nonzeros;
}

inline long forward(const Convolution &c, const double *input, const double *filter, double *output) {
    if (is_empty(fp64(output), size_of(c.output()), size_of(c.input()), size_of(c.filter()))) return 0;
    if (c.is_multiply()) return multiply_rows(kPrecision, fp64(input), fp64(filter), true, fp64(output), c.N, c.C, c.K);
    auto description = describe_forward(c);
    return convolve<dnnl::convolution_forward>(
        description, DNNL_ARG_SRC, input, c.input(), description.src_desc(), DNNL_ARG_WEIGHTS, filter, c.filter(),
        description.weights_desc(), DNNL_ARG_DST, output, c.output(), description.dst_desc());
}

inline long backward_filter(const Convolution &c, const double *input, const double *dout, double *dfilter) {
    if (is_empty(fp64(dfilter), size_of(c.filter()), size_of(c.input()), size_of(c.output()))) return 0;
    if (c.is_multiply()) return multiply_sums(kPrecision, fp64(dout), true, fp64(input), fp64(dfilter), c.K, c.N, c.C);
    dnnl::convolution_backward_weights::primitive_desc description(
        cpu(), dnnl::algorithm::convolution_direct, any(c.input()), any(c.filter(), Type::f32), any(c.output()),
        c.strides(), c.pad_before(), c.pad_after(), describe_forward(c), attributes());
    return convolve<dnnl::convolution_backward_weights>(
        description, DNNL_ARG_SRC, input, c.input(), description.src_desc(), DNNL_ARG_DIFF_DST, dout, c.output(),
        description.diff_dst_desc(), DNNL_ARG_DIFF_WEIGHTS, dfilter, c.filter(),
        description.diff_weights_desc());
}

inline long backward_data(const Convolution &c, const double *filter, const double *dout, double *dinput) {
    if (is_empty(fp64(dinput), size_of(c.input()), size_of(c.filter()), size_of(c.output()))) return 0;
    dnnl::convolution_backward_data::primitive_desc description(
        cpu(), dnnl::algorithm::convolution_direct, any(c.input(), Type::f32), any(c.filter()), any(c.output()),
        c.strides(), c.pad_before(), c.pad_after(), describe_forward(c), attributes());
    return convolve<dnnl::convolution_backward_data>(
        description, DNNL_ARG_WEIGHTS, filter, c.filter(), description.weights_desc(), DNNL_ARG_DIFF_DST, dout,
        c.output(), description.diff_dst_desc(), DNNL_ARG_DIFF_SRC, dinput, c.input(),
        description.diff_src_desc());
}

// Adds a bias of shape (K) to outputs of shape (N, K*P*Q).
inline long add_bias(const Convolution &c, const double *bias, double *output) {
    long pixels = long(c.P) * c.Q, rows = long(c.N) * c.K, nonzeros = 0;
#pragma omp parallel for schedule(static) reduction(+ : nonzeros)
    for (long row = 0; row < rows; row++)
        for (long i = row * pixels; i < (row + 1) * pixels; i++) {
            output[i] += bias[row % c.K];
            nonzeros += output[i] != 0;
        }
    return nonzeros;
}

}  // namespace helper
