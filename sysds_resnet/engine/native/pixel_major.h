// Convolutions in the pixel-major layout: images (N*H*W x C), filters (R*S*C x K) and outputs (N*P*Q x K), in oneDNN's
// terms NHWC and HWIO. Filters are FP32, images and outputs FP32 or bf16. Images are spread over threads; if there are
// fewer images than threads, they are computed together, by oneDNN's own threads.
#pragma once

#include <map>
#include <mutex>
#include <tuple>
#include <utility>

#include "product.h"

namespace helper::pixel_major {

template <typename Primitive>
struct Made {
    typename Primitive::primitive_desc description;
    Primitive primitive;

    void run(int first, void *a, int second, void *b, int third, void *c, const dnnl::memory::desc &a_order,
             const dnnl::memory::desc &b_order, const dnnl::memory::desc &c_order) const {
        static thread_local dnnl::stream stream(cpu());
        auto work = description.scratchpad_desc();
        primitive.execute(stream, {{first, {a_order, cpu(), a}},
                                   {second, {b_order, cpu(), b}},
                                   {third, {c_order, cpu(), c}},
                                   {DNNL_ARG_SCRATCHPAD, {work, cpu(), scratch.work.get(work.get_size())}}});
        stream.wait();
    }
};

// How images are divided: into `groups` groups of up to `group` images, each computed by `threads` threads of oneDNN.
struct Division {
    long group, groups;
    int threads;

    // `most` is the number of images up to which it pays to compute them together.
    Division(const Convolution &c, long most) {
        int all = omp_get_max_threads();
        bool together = c.N < all;
        threads = together ? all : 1;
        groups = together ? 1 : ((c.N + most - 1) / most + all - 1) / all * all;  // as many groups for each thread
        group = (c.N + groups - 1) / groups;
        groups = (c.N + group - 1) / group;
    }
};

// Gives the number of images that share the filters which a thread loads, and that stay with their outputs in its part
// of an L3 cache.
inline long images_together(const Convolution &c, Type images, Type outputs) {
    long bytes = long(c.H) * c.W * c.C * size_of(images) + long(c.P) * c.Q * c.K * size_of(outputs);
    return std::max((4l << 20) / bytes, 1l);
}

// Gives the primitive for a shape, a type of results and a number of threads, which is made once from the description
// by `describe`.
template <typename Primitive, typename Describe>
const Made<Primitive> &made(Convolution c, long images, Type result, int threads, Describe describe) {
    using Key = std::tuple<int, Type, Convolution>;
    static std::map<Key, Made<Primitive>> all;
    static std::mutex mutex;
    c.N = images;
    std::lock_guard<std::mutex> lock(mutex);
    Key key(threads, result, c);
    auto found = all.find(key);
    if (found == all.end()) {
        ThreadsForNow other(threads);
        auto description = describe(c, result, shared_attributes());
        found = all.emplace(key, Made<Primitive>{description, Primitive(description)}).first;
    }
    return found->second;
}

inline dnnl::memory::desc images(const Dims &dims, Type type) { return {dims, type, Tag::nhwc}; }

inline auto describe_forward(const Convolution &c, Type result, const dnnl::primitive_attr &shared) {
    return dnnl::convolution_forward::primitive_desc(
        cpu(), dnnl::prop_kind::forward_training, dnnl::algorithm::convolution_direct,
        images(c.input(), kPrecision), any(c.filter()), images(c.output(), result), c.strides(), c.pad_before(),
        c.pad_after(), shared);
}

inline auto describe_backward_data(const Convolution &c, Type result, const dnnl::primitive_attr &shared) {
    return dnnl::convolution_backward_data::primitive_desc(
        cpu(), dnnl::algorithm::convolution_direct, images(c.input(), result), any(c.filter()),
        images(c.output(), kPrecision), c.strides(), c.pad_before(), c.pad_after(),
        describe_forward(c, Type::f32, attributes()), shared);
}

inline auto describe_backward_filter(const Convolution &c, Type result, const dnnl::primitive_attr &shared) {
    return dnnl::convolution_backward_weights::primitive_desc(
        cpu(), dnnl::algorithm::convolution_direct, images(c.input(), kPrecision), any(c.filter(), result),
        images(c.output(), kPrecision), c.strides(), c.pad_before(), c.pad_after(),
        describe_forward(c, Type::f32, attributes()), shared);
}

// Runs a primitive on images, group by group. An image has `from` values in `input`, and `to` values in `output`.
template <typename Primitive, typename Describe, typename Orders>
void over_images(const Convolution &c, Values input, long from, Values output, long to, const float *filter,
                 Describe describe, Orders orders) {
    Division division(c, images_together(c, input.type, output.type));
    const auto &whole = made<Primitive>(c, division.group, output.type, division.threads, describe);
    long rest = c.N - (division.groups - 1) * division.group;
    const auto &last = made<Primitive>(c, rest, output.type, division.threads, describe);
    auto pack = [&](const auto &one, Buffer &buffer) {
        auto order = one.description.weights_desc();
        void *packed = buffer.get(order.get_size());
        reorder({c.filter(), Type::f32, Tag::hwio}, const_cast<float *>(filter), order, packed);
        return packed;
    };
    void *filter_whole = pack(whole, scratch.packed), *filter_last = filter_whole;
    if (last.description.weights_desc() != whole.description.weights_desc())
        filter_last = pack(last, scratch.packed_whole);
    FirstError error;
    auto run = [&](long g) {
        bool is_last = g == division.groups - 1;
        const auto &one = is_last ? last : whole;
        const auto &[first, first_order, third, third_order] = orders(one.description);
        long from_here = (is_last ? rest : division.group) * from;
        void *a = operand(input.at(g * division.group * from), scratch.a, kPrecision, from_here);
        one.run(first, a, DNNL_ARG_WEIGHTS, is_last ? filter_last : filter_whole, third,
                output.at(g * division.group * to).data, first_order, one.description.weights_desc(), third_order);
    };
#pragma omp parallel for schedule(static) if (division.threads == 1)
    for (long g = 0; g < division.groups; g++) error.guard([&] { run(g); });
    error.rethrow();
}

inline void forward(const Convolution &c, Values input, const float *filter, Values output) {
    if (is_empty(output, size_of(c.output()), size_of(c.input()), size_of(c.filter()))) return;
    if (is_product(c)) return Product(c).forward(input, filter, output);
    over_images<dnnl::convolution_forward>(
        c, input, long(c.H) * c.W * c.C, output, long(c.P) * c.Q * c.K, filter, describe_forward,
        [](const auto &made) {
            return std::make_tuple(DNNL_ARG_SRC, made.src_desc(), DNNL_ARG_DST, made.dst_desc());
        });
}

inline void backward_data(const Convolution &c, const float *filter, Values dout, Values dinput) {
    if (is_empty(dinput, size_of(c.input()), size_of(c.filter()), size_of(c.output()))) return;
    if (is_product(c)) return Product(c).backward_data(filter, dout, dinput);
    over_images<dnnl::convolution_backward_data>(
        c, dout, long(c.P) * c.Q * c.K, dinput, long(c.H) * c.W * c.C, filter, describe_backward_data,
        [](const auto &made) {
            return std::make_tuple(DNNL_ARG_DIFF_DST, made.diff_dst_desc(), DNNL_ARG_DIFF_SRC, made.diff_src_desc());
        });
}

// Computes the gradient with respect to the filters. Every worker has a sum of its own over a share of the images that
// depends on the number of workers alone, and these sums are added in a fixed order.
inline void backward_filter(const Convolution &c, Values input, Values dout, float *dfilter) {
    if (is_empty({dfilter, Type::f32}, size_of(c.filter()), size_of(c.input()), size_of(c.output()))) return;
    if (is_product(c)) return Product(c).backward_filter(input, dout, dfilter);
    long from = long(c.H) * c.W * c.C, to = long(c.P) * c.Q * c.K;
    Division division(c, images_together(c, input.type, dout.type));
    auto make = [&](long images) -> const auto & {
        return made<dnnl::convolution_backward_weights>(c, images, Type::f32, division.threads,
                                                        describe_backward_filter);
    };
    int workers = division.threads > 1 ? 1 : omp_get_max_threads();
    auto start = [&](int worker) { return long(c.N) * worker / workers; };
    auto order = make(division.group).description.diff_weights_desc();
    for (int worker = 0; worker < workers; worker++) {
        long rest = (start(worker + 1) - start(worker)) % division.group;
        if (rest && make(rest).description.diff_weights_desc() != order)
            throw std::runtime_error("oneDNN orders filters differently for fewer images");
    }
    long stored = order.get_size() / 4;
    Sums sums(workers, stored);
    FirstError error;
    auto sum_up = [&](int worker) {
        for (long first = start(worker), count; first < start(worker + 1); first += count) {
            count = std::min(division.group, start(worker + 1) - first);
            const auto &primitive = make(count);
            void *a = operand(input.at(first * from), scratch.a, kPrecision, count * from);
            void *b = operand(dout.at(first * to), scratch.b, kPrecision, count * to);
            bool fresh = first == start(worker);
            auto *sum = sums[worker];
            auto *part = fresh ? sum : static_cast<float *>(scratch.packed.get(stored * 4));
            primitive.run(DNNL_ARG_SRC, a, DNNL_ARG_DIFF_DST, b, DNNL_ARG_DIFF_WEIGHTS, part,
                          primitive.description.src_desc(), primitive.description.diff_dst_desc(), order);
            if (!fresh)
                for (long i = 0; i < stored; i++) sum[i] += part[i];
        }
    };
#pragma omp parallel for schedule(static, 1) num_threads(workers) if (workers > 1)
    for (int worker = 0; worker < workers; worker++) error.guard([&] { sum_up(worker); });
    error.rethrow();
    for (int worker = 1; worker < workers; worker++)  // each has an image, as there are no more workers than images
        over_parts(stored, [&](long start, long n) {
            for (long i = start; i < start + n; i++) sums[0][i] += sums[worker][i];
        });
    reorder(order, sums[0], {c.filter(), Type::f32, Tag::hwio}, dfilter);
}

}  // namespace helper::pixel_major
