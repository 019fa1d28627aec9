// Matrix multiplies and convolutions in FP32 or bf16 for SystemDS, in the place of its OpenBLAS helper.
//
// SystemDS hands FP64 arrays to whatever it finds on the class path as
// lib/libsystemds_openblas-Linux-x86_64.so (org.apache.sysds.utils.NativeHelper). Its own helper multiplies
// in FP64, or in FP32 after the engine has copied everything to FP32 and back in Java. This one converts
// block by block while the values are in the caches, multiplies with oneDNN, and sums in FP32.
// https://github.com/apache/systemds/blob/3.4.0-rc2/src/main/java/org/apache/sysds/utils/NativeHelper.java
//
// SYSDS_RESNET_PRECISION in the environment says what is multiplied: "bf16" or "single" (the default). Sums
// of products are FP32 in both; tsmm, of which norms make their variances, multiplies FP32 in both.
//
// All matrices are row-major. Functions return the number of values other than 0, as the engine expects.

#include <omp.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <new>
#include <stdexcept>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

#include "oneapi/dnnl/dnnl.hpp"

// Runtimes of Java come without jni.h. These are the entries of the function table that are used here:
// https://docs.oracle.com/en/java/javase/17/docs/specs/jni/functions.html
struct JniEnv {
    void *const *table;
};
using Array = void *;
using Class = void *;

namespace {

using Dims = dnnl::memory::dims;
using Type = dnnl::memory::data_type;
using Tag = dnnl::memory::format_tag;
using Arguments = std::unordered_map<int, dnnl::memory>;

const Type kPrecision = [] {
    const char *name = std::getenv("SYSDS_RESNET_PRECISION");
    return name && !std::strcmp(name, "bf16") ? Type::bf16 : Type::f32;
}();

size_t size_of(Type type) { return type == Type::bf16 ? 2 : 4; }

const dnnl::engine &cpu() {
    static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
    return engine;
}

// An array of the JVM while it is pinned.
class Doubles {
  public:
    Doubles(JniEnv *env, Array array, bool written = false) : env_(env), array_(array), written_(written) {
        auto get = reinterpret_cast<void *(*)(JniEnv *, Array, void *)>(env->table[222]);
        data = array ? static_cast<double *>(get(env, array, nullptr)) : nullptr;
    }
    ~Doubles() {
        auto release = reinterpret_cast<void (*)(JniEnv *, Array, void *, int32_t)>(env_->table[223]);
        if (data) release(env_, array_, data, written_ ? 0 : 2);  // 2: nothing to copy back
    }
    Doubles(const Doubles &) = delete;
    Doubles &operator=(const Doubles &) = delete;

    double *data;

  private:
    JniEnv *env_;
    Array array_;
    bool written_;
};

// Memory that is kept from call to call: fresh pages cost as much as the multiply.
class Buffer {
  public:
    ~Buffer() { std::free(data_); }
    void *get(size_t bytes) {
        if (bytes > size_) {
            std::free(data_);
            size_ = (bytes + 4095) / 4096 * 4096;
            data_ = std::aligned_alloc(64, size_);
            if (!data_) {
                size_ = 0;
                throw std::bad_alloc();
            }
        }
        return data_;
    }

  private:
    void *data_ = nullptr;
    size_t size_ = 0;
};

struct Scratch {
    Buffer a, b, c, packed, packed_whole, work;
};
thread_local Scratch scratch;

__attribute__((target_clones("avx512f", "avx2", "default")))
void to_f32(const double *from, float *to, long n) {
    for (long i = 0; i < n; i++) to[i] = static_cast<float>(from[i]);
}

// Rounds to nearest, ties to even; NaN stays NaN.
__attribute__((target_clones("avx512f", "avx2", "default")))
void to_bf16(const double *from, uint16_t *to, long n) {
    for (long i = 0; i < n; i++) {
        float value = static_cast<float>(from[i]);
        uint32_t bits;
        std::memcpy(&bits, &value, 4);
        uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
        to[i] = static_cast<uint16_t>(value != value ? 0x7fc0 : rounded);
    }
}

__attribute__((target_clones("avx512f", "avx2", "default")))
long to_f64(const float *from, double *to, long n) {
    long zeros = 0;
    for (long i = 0; i < n; i++) {
        to[i] = from[i];
        zeros += from[i] == 0;
    }
    return n - zeros;
}

// Calls run(start, count) for a part of 0..size in each thread.
template <typename Run>
void over_parts(long size, Run run) {
    long part = (size + omp_get_max_threads() - 1) / omp_get_max_threads();
#pragma omp parallel for schedule(static)
    for (long start = 0; start < size; start += part) run(start, std::min(part, size - start));
}

// Rows of `columns` values each, `stride` apart in `from` and next to each other in `to`.
void convert(const double *from, long stride, void *to, Type type, long rows, long columns) {
    if (stride == columns) {
        columns *= rows;
        rows = 1;
    }
    for (long r = 0; r < rows; r++, from += stride) {
        if (type == Type::bf16)
            to_bf16(from, static_cast<uint16_t *>(to) + r * columns, columns);
        else
            to_f32(from, static_cast<float *>(to) + r * columns, columns);
    }
}

// Converts n values by all threads.
void load(const double *values, void *target, Type type, long n) {
    over_parts(n, [&](long start, long part) {
        convert(values + start, part, static_cast<char *>(target) + start * size_of(type), type, 1, part);
    });
}

// Converts n values back by all threads, and gives the number of those other than 0.
long store(const float *values, double *target, long n) {
    long nonzeros = 0;
    over_parts(n, [&](long start, long part) {
        long found = to_f64(values + start, target + start, part);
#pragma omp atomic
        nonzeros += found;
    });
    return nonzeros;
}

// A multiply (m x k) * (k x n), made once for its shape and for one thread: the blocks are spread over threads.
struct Multiply {
    Type type;
    long m, k, n;
    bool transposed;   // the first operand lies there as (k x m)
    bool accumulated;  // the product is added to what the result holds
    bool packed;       // the second operand comes in oneDNN's own order

    auto key() const { return std::tie(type, m, k, n, transposed, accumulated, packed); }
    bool operator<(const Multiply &other) const { return key() < other.key(); }

    dnnl::memory::desc first() const { return {{m, k}, type, transposed ? Tag::ba : Tag::ab}; }
    dnnl::memory::desc second() const { return {{k, n}, type, packed ? Tag::any : Tag::ab}; }
    dnnl::memory::desc result() const { return {{m, n}, Type::f32, Tag::ab}; }

    const dnnl::matmul::primitive_desc &described() const { return made().first; }

    void run(void *a, void *b, float *c) const {
        const auto &[description, primitive] = made();
        static thread_local dnnl::stream stream(cpu());
        auto work = description.scratchpad_desc();
        primitive.execute(stream, {{DNNL_ARG_SRC, {description.src_desc(), cpu(), a}},
                                   {DNNL_ARG_WEIGHTS, {description.weights_desc(), cpu(), b}},
                                   {DNNL_ARG_DST, {description.dst_desc(), cpu(), c}},
                                   {DNNL_ARG_SCRATCHPAD, {work, cpu(), scratch.work.get(work.get_size())}}});
        stream.wait();
    }

  private:
    using Made = std::pair<dnnl::matmul::primitive_desc, dnnl::matmul>;

    const Made &made() const {
        static std::map<Multiply, Made> all;
        static std::mutex mutex;
        std::lock_guard<std::mutex> lock(mutex);
        auto found = all.find(*this);
        if (found == all.end()) {
            dnnl::primitive_attr attributes;
            attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);  // several threads run it at a time
            if (accumulated) {
                dnnl::post_ops sum;
                sum.append_sum();
                attributes.set_post_ops(sum);
            }
            int threads = omp_get_max_threads();
            omp_set_num_threads(1);
            dnnl::matmul::primitive_desc description(cpu(), first(), second(), result(), attributes);
            omp_set_num_threads(threads);
            found = all.emplace(*this, Made{description, dnnl::matmul(description)}).first;
        }
        return found->second;
    }
};

constexpr long kBlockBytes = 384 * 1024;  // of operands and result that a core works on: most of an L2 cache

// Rows in a block if each needs `bytes`: a multiple of 16, enough blocks for all threads.
long block_rows(long rows, long bytes) {
    long fitting = std::max(kBlockBytes / std::max(bytes, 1l), 64l);
    long share = (rows + omp_get_max_threads() - 1) / omp_get_max_threads();
    return (std::min(fitting, share) + 15) / 16 * 16;
}

// C = A * B, or A * t(B) with B (n x k), by blocks of rows, for many rows. B is brought into oneDNN's order once.
long multiply_rows(Type type, const double *A, const double *B, bool transposed, double *C, long m, long k,
                   long n) {
    long rows = block_rows(m, k * size_of(type) + n * 4);
    long blocks = (m + rows - 1) / rows, rest = m - (blocks - 1) * rows;
    Multiply whole{type, rows, k, n, false, false, true}, last{type, rest, k, n, false, false, true};

    auto *plain = static_cast<float *>(scratch.c.get(k * n * 4));
    over_parts(k * n, [&](long start, long size) { to_f32(B + start, plain + start, size); });
    dnnl::memory source({{k, n}, Type::f32, transposed ? Tag::ba : Tag::ab}, cpu(), plain);
    auto pack = [&](const Multiply &multiply, Buffer &buffer) {
        auto order = multiply.described().weights_desc();
        void *data = buffer.get(order.get_size());
        dnnl::memory target(order, cpu(), data);
        dnnl::stream stream(cpu());
        dnnl::reorder(source, target).execute(stream, source, target);
        stream.wait();
        return data;
    };
    void *b_last = pack(last, scratch.packed), *b_whole = b_last;
    if (whole.described().weights_desc() != last.described().weights_desc())
        b_whole = pack(whole, scratch.packed_whole);

    long nonzeros = 0;
#pragma omp parallel for schedule(dynamic) reduction(+ : nonzeros)
    for (long block = 0; block < blocks; block++) {
        bool is_last = block == blocks - 1;
        long count = is_last ? rest : rows;
        void *a = scratch.a.get(rows * k * size_of(type));
        auto *c = static_cast<float *>(scratch.b.get(rows * n * 4));
        convert(A + block * rows * k, k, a, type, count, k);
        (is_last ? last : whole).run(a, is_last ? b_last : b_whole, c);
        nonzeros += to_f64(c, C + block * rows * n, count * n);
    }
    return nonzeros;
}

// C = A * B, or t(A) * B with A (k x m), by blocks of what is summed over, for long sums. Every thread sums
// for itself over a share that depends on their number alone; the sums are added in a fixed order.
long multiply_sums(Type type, const double *A, bool transposed, const double *B, double *C, long m, long k,
                   long n) {
    int threads = omp_get_max_threads();
    long share = (k + threads - 1) / threads;
    long rows = std::min(std::max(kBlockBytes / ((m + n) * long(size_of(type))) / 16 * 16, 64l), share);
    Multiply shape{type, m, rows, n, transposed, true, false};
    shape.described();
    std::vector<float *> sums(threads);
#pragma omp parallel num_threads(threads)
    {
        int thread = omp_get_thread_num();
        long end = std::min(k, (thread + 1) * share);
        auto *sum = sums[thread] = static_cast<float *>(scratch.c.get(m * n * 4));
        std::memset(sum, 0, m * n * 4);
        void *a = scratch.a.get(m * rows * size_of(type)), *b = scratch.b.get(rows * n * size_of(type));
        for (long r = thread * share; r < end; r += rows) {
            long count = std::min(rows, end - r);
            if (transposed)
                convert(A + r * m, m, a, type, count, m);
            else
                convert(A + r, k, a, type, m, count);
            convert(B + r * n, n, b, type, count, n);
            Multiply part = shape;
            part.k = count;
            part.run(a, b, sum);
        }
    }
    long nonzeros = 0, size = m * n, part = (size + threads - 1) / threads;
#pragma omp parallel for schedule(static) reduction(+ : nonzeros)
    for (long start = 0; start < size; start += part) {
        long end = std::min(size, start + part);
        for (int thread = 1; thread < threads; thread++)
            for (long i = start; i < end; i++) sums[0][i] += sums[thread][i];
        nonzeros += to_f64(sums[0] + start, C + start, end - start);
    }
    return nonzeros;
}

long multiply(Type type, const double *A, const double *B, double *C, long m, long k, long n) {
    bool long_sums = k > 4 * std::max(m, n);
    return long_sums ? multiply_sums(type, A, false, B, C, m, k, n) : multiply_rows(type, A, B, false, C, m, k, n);
}

// A convolution in the engine's terms: K filters of C x R x S, outputs P x Q.
struct Convolution {
    int32_t N, C, H, W, K, R, S, stride_h, stride_w, pad_h, pad_w, P, Q;

    Dims input() const { return {N, C, H, W}; }
    Dims filter() const { return {K, C, R, S}; }
    Dims output() const { return {N, K, P, Q}; }
    Dims strides() const { return {stride_h, stride_w}; }
    Dims pad_before() const { return {pad_h, pad_w}; }
    Dims pad_after() const { return {(P - 1) * stride_h + R - H - pad_h, (Q - 1) * stride_w + S - W - pad_w}; }
    auto key() const {
        return std::tie(N, C, H, W, K, R, S, stride_h, stride_w, pad_h, pad_w, P, Q);
    }
    bool operator<(const Convolution &other) const { return key() < other.key(); }
    // Whether it is a multiply of (N x C) with filters (K x C).
    bool is_multiply() const { return H == 1 && W == 1 && R == 1 && S == 1 && P == 1 && Q == 1; }
};

dnnl::memory::desc any(const Dims &dims, Type type = kPrecision) { return {dims, type, Tag::any}; }

dnnl::convolution_forward::primitive_desc describe_forward(const Convolution &c) {
    return {cpu(), dnnl::prop_kind::forward_training, dnnl::algorithm::convolution_direct, any(c.input()),
            any(c.filter()), any(c.output(), Type::f32), c.strides(), c.pad_before(), c.pad_after()};
}

long size_of(const Dims &dims) { return dims[0] * dims[1] * dims[2] * dims[3]; }

// Runs one of oneDNN's three convolution primitives on two FP64 operands in the engine's (N, C*H*W) layout.
template <typename Primitive, typename Description>
long convolve(const Description &description, int first, const double *a, const Dims &a_dims,
              const dnnl::memory::desc &a_order, int second, const double *b, const Dims &b_dims,
              const dnnl::memory::desc &b_order, int third, double *c, const Dims &c_dims,
              const dnnl::memory::desc &c_order) {
    dnnl::stream stream(cpu());
    auto plain = [](const Dims &dims, Buffer &buffer) {
        return dnnl::memory({dims, Type::f32, Tag::abcd}, cpu(), buffer.get(size_of(dims) * 4));
    };
    auto load = [&](const double *values, const Dims &dims, const dnnl::memory::desc &order, Buffer &buffer) {
        auto source = plain(dims, buffer);
        auto *to = static_cast<float *>(source.get_data_handle());
        over_parts(size_of(dims), [&](long start, long n) { to_f32(values + start, to + start, n); });
        dnnl::memory target(order, cpu());
        dnnl::reorder(source, target).execute(stream, source, target);
        return target;
    };
    auto a_memory = load(a, a_dims, a_order, scratch.a);
    auto b_memory = load(b, b_dims, b_order, scratch.a);
    dnnl::memory c_memory(c_order, cpu()), result = plain(c_dims, scratch.b);
    Primitive(description).execute(stream, {{first, a_memory}, {second, b_memory}, {third, c_memory}});
    dnnl::reorder(c_memory, result).execute(stream, c_memory, result);
    stream.wait();
    auto *from = static_cast<float *>(result.get_data_handle());
    return store(from, c, size_of(c_dims));
}

long forward(const Convolution &c, const double *input, const double *filter, double *output) {
    if (c.is_multiply()) return multiply_rows(kPrecision, input, filter, true, output, c.N, c.C, c.K);
    auto description = describe_forward(c);
    return convolve<dnnl::convolution_forward>(
        description, DNNL_ARG_SRC, input, c.input(), description.src_desc(), DNNL_ARG_WEIGHTS, filter, c.filter(),
        description.weights_desc(), DNNL_ARG_DST, output, c.output(), description.dst_desc());
}

long backward_filter(const Convolution &c, const double *input, const double *dout, double *dfilter) {
    if (c.is_multiply()) return multiply_sums(kPrecision, dout, true, input, dfilter, c.K, c.N, c.C);
    dnnl::convolution_backward_weights::primitive_desc description(
        cpu(), dnnl::algorithm::convolution_direct, any(c.input()), any(c.filter(), Type::f32), any(c.output()),
        c.strides(), c.pad_before(), c.pad_after(), describe_forward(c));
    return convolve<dnnl::convolution_backward_weights>(
        description, DNNL_ARG_SRC, input, c.input(), description.src_desc(), DNNL_ARG_DIFF_DST, dout, c.output(),
        description.diff_dst_desc(), DNNL_ARG_DIFF_WEIGHTS, dfilter, c.filter(),
        description.diff_weights_desc());
}

long backward_data(const Convolution &c, const double *filter, const double *dout, double *dinput) {
    dnnl::convolution_backward_data::primitive_desc description(
        cpu(), dnnl::algorithm::convolution_direct, any(c.input(), Type::f32), any(c.filter()), any(c.output()),
        c.strides(), c.pad_before(), c.pad_after(), describe_forward(c));
    return convolve<dnnl::convolution_backward_data>(
        description, DNNL_ARG_WEIGHTS, filter, c.filter(), description.weights_desc(), DNNL_ARG_DIFF_DST, dout,
        c.output(), description.diff_dst_desc(), DNNL_ARG_DIFF_SRC, dinput, c.input(),
        description.diff_src_desc());
}

// Pixel-major: images (N*H*W x C), filters (R*S*C x K) and outputs (N*P*Q x K), in oneDNN's terms NHWC and HWIO.
// Images are spread over threads, each converted, computed and converted back while it is in the caches. Where
// there are fewer than threads, they are computed together, by oneDNN's own threads.
namespace pixel_major {

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

// How the images of a convolution are divided: `group` at a time, each by so many threads of oneDNN's.
struct Division {
    long group, groups;
    int threads;

    // `most`: images that are worth computing together.
    Division(const Convolution &c, long most) {
        int all = omp_get_max_threads();
        bool together = c.N < all;
        threads = together ? all : 1;
        group = together ? c.N : std::min(most, (c.N + all - 1l) / all);
        groups = (c.N + group - 1) / group;
    }
};

// What oneDNN made for a shape and a number of threads, once. `describe` gives its description.
template <typename Primitive, typename Describe>
const Made<Primitive> &made(Convolution c, long images, int threads, Describe describe) {
    static std::map<std::pair<int, Convolution>, Made<Primitive>> all;
    static std::mutex mutex;
    c.N = images;
    std::lock_guard<std::mutex> lock(mutex);
    auto found = all.find({threads, c});
    if (found == all.end()) {
        dnnl::primitive_attr attributes;
        attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);  // several threads run it at a time
        int before = omp_get_max_threads();
        omp_set_num_threads(threads);
        auto description = describe(c, attributes);
        omp_set_num_threads(before);
        found = all.emplace(std::make_pair(threads, c), Made<Primitive>{description, Primitive(description)}).first;
    }
    return found->second;
}

dnnl::memory::desc images(const Dims &dims, Type type) { return {dims, type, Tag::nhwc}; }

auto describe_forward(const Convolution &c, const dnnl::primitive_attr &attributes) {
    return dnnl::convolution_forward::primitive_desc(
        cpu(), dnnl::prop_kind::forward_training, dnnl::algorithm::convolution_direct,
        images(c.input(), kPrecision), any(c.filter()), images(c.output(), Type::f32), c.strides(), c.pad_before(),
        c.pad_after(), attributes);
}

auto describe_backward_data(const Convolution &c, const dnnl::primitive_attr &attributes) {
    return dnnl::convolution_backward_data::primitive_desc(
        cpu(), dnnl::algorithm::convolution_direct, images(c.input(), Type::f32), any(c.filter()),
        images(c.output(), kPrecision), c.strides(), c.pad_before(), c.pad_after(), describe_forward(c, {}),
        attributes);
}

auto describe_backward_filter(const Convolution &c, const dnnl::primitive_attr &attributes) {
    return dnnl::convolution_backward_weights::primitive_desc(
        cpu(), dnnl::algorithm::convolution_direct, images(c.input(), kPrecision), any(c.filter(), Type::f32),
        images(c.output(), kPrecision), c.strides(), c.pad_before(), c.pad_after(), describe_forward(c, {}),
        attributes);
}

void reorder(const dnnl::memory::desc &from_order, void *from, const dnnl::memory::desc &to_order, void *to) {
    dnnl::memory source(from_order, cpu(), from), target(to_order, cpu(), to);
    dnnl::stream stream(cpu());
    dnnl::reorder(source, target).execute(stream, source, target);
    stream.wait();
}

// The filters in the order that a primitive wants.
void *pack(const Convolution &c, const double *filter, const dnnl::memory::desc &order) {
    long size = size_of(c.filter());
    auto *plain = static_cast<float *>(scratch.c.get(size * 4));
    load(filter, plain, Type::f32, size);
    void *packed = scratch.packed.get(order.get_size());
    reorder({c.filter(), Type::f32, Tag::hwio}, plain, order, packed);
    return packed;
}

// Runs a primitive on images, group by group: from `input`, `from` values an image, to `output`, `to` an image.
template <typename Primitive, typename Describe, typename Orders>
long over_images(const Convolution &c, const double *input, long from, double *output, long to,
                 const double *filter, Describe describe, Orders orders) {
    Division division(c, 1);
    const auto &made_once = made<Primitive>(c, division.group, division.threads, describe);
    const auto &[first, first_order, third, third_order] = orders(made_once.description);
    auto filter_order = made_once.description.weights_desc();
    void *packed = pack(c, filter, filter_order);
    long nonzeros = 0;
#pragma omp parallel for schedule(static) reduction(+ : nonzeros) if (division.threads == 1)
    for (long g = 0; g < division.groups; g++) {
        long in = division.group * from, out = division.group * to;
        void *a = scratch.a.get(in * size_of(kPrecision));
        auto *b = static_cast<float *>(scratch.b.get(out * 4));
        load(input + g * in, a, kPrecision, in);
        made_once.run(first, a, DNNL_ARG_WEIGHTS, packed, third, b, first_order, filter_order, third_order);
        nonzeros += store(b, output + g * out, out);
    }
    return nonzeros;
}

long forward(const Convolution &c, const double *input, const double *filter, double *output) {
    return over_images<dnnl::convolution_forward>(
        c, input, long(c.H) * c.W * c.C, output, long(c.P) * c.Q * c.K, filter, describe_forward,
        [](const auto &made) {
            return std::make_tuple(DNNL_ARG_SRC, made.src_desc(), DNNL_ARG_DST, made.dst_desc());
        });
}

long backward_data(const Convolution &c, const double *filter, const double *dout, double *dinput) {
    return over_images<dnnl::convolution_backward_data>(
        c, dout, long(c.P) * c.Q * c.K, dinput, long(c.H) * c.W * c.C, filter, describe_backward_data,
        [](const auto &made) {
            return std::make_tuple(DNNL_ARG_DIFF_DST, made.diff_dst_desc(), DNNL_ARG_DIFF_SRC, made.diff_src_desc());
        });
}

constexpr long kGroupBytes = 4 << 20;  // of images that a core sums filters' gradients over at a time: its L3 cache

// Every thread sums for itself over a share that depends on their number alone; the sums are added in a fixed
// order.
long backward_filter(const Convolution &c, const double *input, const double *dout, double *dfilter) {
    long from = long(c.H) * c.W * c.C, to = long(c.P) * c.Q * c.K, size = size_of(c.filter());
    Division division(c, std::max(kGroupBytes / ((from + to) * long(size_of(kPrecision))), 1l));
    auto make = [&](long images) -> const auto & {
        return made<dnnl::convolution_backward_weights>(c, images, division.threads, describe_backward_filter);
    };
    const auto &whole = make(division.group);
    int workers = division.threads > 1 ? 1 : omp_get_max_threads();
    auto order = whole.description.diff_weights_desc();
    long stored = order.get_size() / 4;
    std::vector<float *> sums(workers, nullptr);
#pragma omp parallel for schedule(static, 1) num_threads(workers) if (workers > 1)
    for (int worker = 0; worker < workers; worker++) {
        long end = long(c.N) * (worker + 1) / workers;
        for (long first = long(c.N) * worker / workers, count; first < end; first += count) {
            count = std::min(division.group, end - first);
            const auto &primitive = count == division.group ? whole : make(count);
            void *a = scratch.a.get(division.group * from * size_of(kPrecision));
            void *b = scratch.b.get(division.group * to * size_of(kPrecision));
            load(input + first * from, a, kPrecision, count * from);
            load(dout + first * to, b, kPrecision, count * to);
            bool fresh = sums[worker] == nullptr;
            auto *sum = static_cast<float *>(scratch.c.get(stored * 4));
            auto *part = fresh ? sum : static_cast<float *>(scratch.packed.get(stored * 4));
            auto own = primitive.description.diff_weights_desc();
            if (own != order) throw std::runtime_error("oneDNN orders filters differently for fewer images");
            primitive.run(DNNL_ARG_SRC, a, DNNL_ARG_DIFF_DST, b, DNNL_ARG_DIFF_WEIGHTS, part,
                          primitive.description.src_desc(), primitive.description.diff_dst_desc(), order);
            if (!fresh)
                for (long i = 0; i < stored; i++) sum[i] += part[i];
            sums[worker] = sum;
        }
    }
    for (int worker = 1; worker < workers; worker++)
        if (sums[worker])
            over_parts(stored, [&](long start, long n) {
                for (long i = start; i < start + n; i++) sums[0][i] += sums[worker][i];
            });
    auto *plain = static_cast<float *>(scratch.packed_whole.get(size * 4));
    reorder(order, sums[0], {c.filter(), Type::f32, Tag::hwio}, plain);
    return store(plain, dfilter, size);
}

}  // namespace pixel_major

// A failure ends in the engine as an exception that blames memory; the reason goes to the JVM's errors.
template <typename Work>
int64_t guarded(int32_t threads, Work work) {
    omp_set_num_threads(std::max(std::abs(threads), 1));  // of what this thread of the JVM starts
    try {
        return work();
    } catch (const std::exception &error) {
        std::fprintf(stderr, "sysds_resnet native helper: %s\n", error.what());
        return -1;
    }
}

}  // namespace

#define NATIVE(type, name) \
    extern "C" __attribute__((visibility("default"))) type Java_org_apache_sysds_utils_NativeHelper_##name

NATIVE(void, setMaxNumThreads)(JniEnv *, Class, int32_t) {}  // each call says its own number

// ret (m x n) = first (m x k) %*% second (k x n)
NATIVE(int64_t, dmmdd)(JniEnv *env, Class, Array first, Array second, Array ret, int32_t m, int32_t k, int32_t n,
                       int32_t threads) {
    Doubles A(env, first), B(env, second), C(env, ret, true);
    return guarded(threads, [&] { return multiply(kPrecision, A.data, B.data, C.data, m, k, n); });
}

// ret (n x n) = t(X) %*% X, or (m x m) = X %*% t(X), of X (m x n)
NATIVE(int64_t, tsmm)(JniEnv *env, Class, Array first, Array ret, int32_t m, int32_t n, uint8_t left,
                      int32_t threads) {
    Doubles X(env, first), C(env, ret, true);
    return guarded(threads, [&] {
        if (left) return multiply_sums(Type::f32, X.data, true, X.data, C.data, n, m, n);
        return multiply_rows(Type::f32, X.data, X.data, true, C.data, m, n, m);
    });
}

#define SHAPE_PARAMETERS                                                                                    \
    int32_t N, int32_t C, int32_t H, int32_t W, int32_t K, int32_t R, int32_t S, int32_t stride_h,           \
        int32_t stride_w, int32_t pad_h, int32_t pad_w, int32_t P, int32_t Q, int32_t threads
// A negative number of threads says that images, filters and outputs are pixel-major. The package's own operators
// (sysds_resnet/engine/Native.java) give such.
#define SHAPE Convolution{N, C, H, W, K, R, S, stride_h, stride_w, pad_h, pad_w, P, Q}

NATIVE(int64_t, conv2dDense)(JniEnv *env, Class, Array input, Array filter, Array ret, SHAPE_PARAMETERS) {
    Doubles X(env, input), F(env, filter), out(env, ret, true);
    return guarded(threads, [&] {
        if (threads < 0) return pixel_major::forward(SHAPE, X.data, F.data, out.data);
        return forward(SHAPE, X.data, F.data, out.data);
    });
}

NATIVE(int64_t, dconv2dBiasAddDense)(JniEnv *env, Class, Array input, Array bias, Array filter, Array ret,
                                     SHAPE_PARAMETERS) {
    Doubles X(env, input), b(env, bias), F(env, filter), out(env, ret, true);
    return guarded(threads, [&] {
        forward(SHAPE, X.data, F.data, out.data);
        long pixels = long(P) * Q, nonzeros = 0;
#pragma omp parallel for schedule(static) reduction(+ : nonzeros)
        for (long row = 0; row < long(N) * K; row++)
            for (long i = row * pixels; i < (row + 1) * pixels; i++) {
                out.data[i] += b.data[row % K];
                nonzeros += out.data[i] != 0;
            }
        return nonzeros;
    });
}

NATIVE(int64_t, conv2dBackwardFilterDense)(JniEnv *env, Class, Array input, Array dout, Array ret,
                                           SHAPE_PARAMETERS) {
    Doubles X(env, input), D(env, dout), dF(env, ret, true);
    return guarded(threads, [&] {
        if (threads < 0) return pixel_major::backward_filter(SHAPE, X.data, D.data, dF.data);
        return backward_filter(SHAPE, X.data, D.data, dF.data);
    });
}

NATIVE(int64_t, conv2dBackwardDataDense)(JniEnv *env, Class, Array filter, Array dout, Array ret,
                                         SHAPE_PARAMETERS) {
    Doubles F(env, filter), D(env, dout), dX(env, ret, true);
    return guarded(threads, [&] {
        if (threads < 0) return pixel_major::backward_data(SHAPE, F.data, D.data, dX.data);
        return backward_data(SHAPE, F.data, D.data, dX.data);
    });
}
