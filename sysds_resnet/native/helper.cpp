// Matrix multiplies and convolutions in FP32 or bf16 for SystemDS, in the place of its OpenBLAS helper.
//
// SystemDS hands FP64 arrays to whatever it finds on the class path as
// lib/libsystemds_openblas-Linux-x86_64.so (org.apache.sysds.utils.NativeHelper). Its own helper multiplies
// in FP64, or in FP32 after the engine has copied everything to FP32 and back in Java. This one converts
// block by block while the values are in the caches, multiplies with oneDNN, and sums in FP32. The package's own
// operators give it FP32 arrays, which it computes with where they lie (sconv2dBiasAddDense, below).
// https://github.com/apache/systemds/blob/3.4.0-rc2/src/main/java/org/apache/sysds/utils/NativeHelper.java
//
// SYSDS_RESNET_PRECISION in the environment says what is multiplied: "bf16" or "single" (the default). Sums
// of products are FP32 in both; tsmm, of which norms make their variances, multiplies FP32 in both.
//
// All matrices are row-major. Functions on FP64 return the number of values other than 0, as the engine expects.

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
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <vector>

#include "oneapi/dnnl/dnnl.hpp"

// Runtimes of Java come without jni.h. These are the entries of the function table that are used here:
// https://docs.oracle.com/en/java/javase/17/docs/specs/jni/functions.html
struct JniEnv {
    void *const *table;
};
using Object = void *;
using Array = Object;
using Class = Object;

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

// An array of the JVM while it is pinned; nothing if there is none.
template <typename Value>
class Pinned {
  public:
    Pinned(JniEnv *env, Array array, bool written = false) : env_(env), array_(array), written_(written) {
        auto get = reinterpret_cast<void *(*)(JniEnv *, Array, void *)>(env->table[222]);
        data = array ? static_cast<Value *>(get(env, array, nullptr)) : nullptr;
    }
    ~Pinned() {
        auto release = reinterpret_cast<void (*)(JniEnv *, Array, void *, int32_t)>(env_->table[223]);
        if (data) release(env_, array_, data, written_ ? 0 : 2);  // 2: nothing to copy back
    }
    Pinned(const Pinned &) = delete;
    Pinned &operator=(const Pinned &) = delete;

    Value *data;

  private:
    JniEnv *env_;
    Array array_;
    bool written_;
};
using Doubles = Pinned<double>;

// The array that a FloatBuffer wraps, or null for null; to be asked for before any array is pinned.
Array wrapped(JniEnv *env, Object buffer) {
    if (!buffer) return nullptr;
    auto class_of = reinterpret_cast<Class (*)(JniEnv *, Object)>(env->table[31]);
    auto method = reinterpret_cast<void *(*)(JniEnv *, Class, const char *, const char *)>(env->table[33]);
    auto call = reinterpret_cast<Object (*)(JniEnv *, Object, void *, const void *)>(env->table[36]);
    return call(env, buffer, method(env, class_of(env, buffer), "array", "()[F"), nullptr);
}

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

void to_f32(const float *from, float *to, long n) { std::memcpy(to, from, n * sizeof *to); }

// Rounds to nearest, ties to even; NaN stays NaN.
inline uint16_t rounded(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    return static_cast<uint16_t>(value != value ? 0x7fc0 : (bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

__attribute__((target_clones("avx512f", "avx2", "default")))
void to_bf16(const double *from, uint16_t *to, long n) {
    for (long i = 0; i < n; i++) to[i] = rounded(static_cast<float>(from[i]));
}

__attribute__((target_clones("avx512f", "avx2", "default")))
void to_bf16(const float *from, uint16_t *to, long n) {
    for (long i = 0; i < n; i++) to[i] = rounded(from[i]);
}

// Gives the number of values other than 0.
__attribute__((target_clones("avx512f", "avx2", "default")))
long give(const float *from, double *to, long n) {
    long zeros = 0;
    for (long i = 0; i < n; i++) {
        to[i] = from[i];
        zeros += from[i] == 0;
    }
    return n - zeros;
}

// Of FP32 the engine does not ask how many are 0.
long give(const float *from, float *to, long n) {
    if (from != to) std::memcpy(to, from, n * sizeof *to);
    return n;
}

// Calls run(start, count) for a part of 0..size in each thread.
template <typename Run>
void over_parts(long size, Run run) {
    long part = (size + omp_get_max_threads() - 1) / omp_get_max_threads();
#pragma omp parallel for schedule(static)
    for (long start = 0; start < size; start += part) run(start, std::min(part, size - start));
}

// Rows of `columns` values each, `stride` apart in `from` and next to each other in `to`.
template <typename Value>
void convert(const Value *from, long stride, void *to, Type type, long rows, long columns) {
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

// The same rows as an operand of a type: where they lie if they are that already, or converted.
template <typename Value>
void *operand(const Value *from, long stride, Buffer &buffer, Type type, long rows, long columns) {
    if (std::is_same<Value, float>::value && type == Type::f32 && stride == columns)
        return const_cast<Value *>(from);
    void *to = buffer.get(rows * columns * size_of(type));
    convert(from, stride, to, type, rows, columns);
    return to;
}

// n values as an operand of a type, by all threads.
template <typename Value>
void *operand(const Value *from, Buffer &buffer, Type type, long n) {
    if (std::is_same<Value, float>::value && type == Type::f32) return const_cast<Value *>(from);
    void *to = buffer.get(n * size_of(type));
    over_parts(n, [&](long start, long part) {
        convert(from + start, part, static_cast<char *>(to) + start * size_of(type), type, 1, part);
    });
    return to;
}

// Where a result of n values is computed: in its place if that is of FP32.
float *place(double *, Buffer &buffer, long n) { return static_cast<float *>(buffer.get(n * 4)); }
float *place(float *result, Buffer &, long) { return result; }

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
template <typename Value>
long multiply_rows(Type type, const Value *A, const Value *B, bool transposed, Value *C, long m, long k, long n) {
    long rows = block_rows(m, k * size_of(type) + n * 4);
    long blocks = (m + rows - 1) / rows, rest = m - (blocks - 1) * rows;
    Multiply whole{type, rows, k, n, false, false, true}, last{type, rest, k, n, false, false, true};

    void *plain = operand(B, scratch.c, Type::f32, k * n);
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
        auto *result = C + block * rows * n;
        void *a = operand(A + block * rows * k, k, scratch.a, type, count, k);
        auto *c = place(result, scratch.b, rows * n);
        (is_last ? last : whole).run(a, is_last ? b_last : b_whole, c);
        nonzeros += give(c, result, count * n);
    }
    return nonzeros;
}

// C = A * B, or t(A) * B with A (k x m), by blocks of what is summed over, for long sums. Every thread sums
// for itself over a share that depends on their number alone; the sums are added in a fixed order.
template <typename Value>
long multiply_sums(Type type, const Value *A, bool transposed, const Value *B, Value *C, long m, long k, long n) {
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
        for (long r = thread * share; r < end; r += rows) {
            long count = std::min(rows, end - r);
            void *a = transposed ? operand(A + r * m, m, scratch.a, type, count, m)
                                 : operand(A + r, k, scratch.a, type, m, count);
            void *b = operand(B + r * n, n, scratch.b, type, count, n);
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
        nonzeros += give(sums[0] + start, C + start, end - start);
    }
    return nonzeros;
}

template <typename Value>
long multiply(Type type, const Value *A, const Value *B, Value *C, long m, long k, long n) {
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
    auto load = [&](const double *values, const Dims &dims, const dnnl::memory::desc &order, Buffer &buffer) {
        dnnl::memory source({dims, Type::f32, Tag::abcd}, cpu(), operand(values, buffer, Type::f32, size_of(dims)));
        dnnl::memory target(order, cpu());
        dnnl::reorder(source, target).execute(stream, source, target);
        return target;
    };
    auto a_memory = load(a, a_dims, a_order, scratch.a);
    auto b_memory = load(b, b_dims, b_order, scratch.a);
    long size = size_of(c_dims), nonzeros = 0;
    auto *plain = place(c, scratch.b, size);
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
// All are of FP32. Images are spread over threads; where there are fewer than threads, they are computed together,
// by oneDNN's own threads.
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
        groups = together ? 1 : ((c.N + most - 1) / most + all - 1) / all * all;  // as many for each thread
        group = (c.N + groups - 1) / groups;
        groups = (c.N + group - 1) / group;
    }
};

// Images that share what a thread loads of filters, and stay in its part of an L3 cache with their outputs.
long images_together(const Convolution &c) {
    long bytes = (long(c.H) * c.W * c.C + long(c.P) * c.Q * c.K) * 4;
    return std::max((4l << 20) / bytes, 1l);
}

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

// Runs a primitive on images, group by group: from `input`, `from` values an image, to `output`, `to` an image.
template <typename Primitive, typename Describe, typename Orders>
void over_images(const Convolution &c, const float *input, long from, float *output, long to, const float *filter,
                 Describe describe, Orders orders) {
    Division division(c, images_together(c));
    const auto &whole = made<Primitive>(c, division.group, division.threads, describe);
    long rest = c.N - (division.groups - 1) * division.group;
    const auto &last = made<Primitive>(c, rest, division.threads, describe);
    auto pack = [&](const auto &one, Buffer &buffer) {
        auto order = one.description.weights_desc();
        void *packed = buffer.get(order.get_size());
        reorder({c.filter(), Type::f32, Tag::hwio}, const_cast<float *>(filter), order, packed);
        return packed;
    };
    void *filter_whole = pack(whole, scratch.packed), *filter_last = filter_whole;
    if (last.description.weights_desc() != whole.description.weights_desc())
        filter_last = pack(last, scratch.packed_whole);
#pragma omp parallel for schedule(static) if (division.threads == 1)
    for (long g = 0; g < division.groups; g++) {
        bool is_last = g == division.groups - 1;
        const auto &one = is_last ? last : whole;
        const auto &[first, first_order, third, third_order] = orders(one.description);
        long from_here = (is_last ? rest : division.group) * from;
        void *a = operand(input + g * division.group * from, scratch.a, kPrecision, from_here);
        one.run(first, a, DNNL_ARG_WEIGHTS, is_last ? filter_last : filter_whole, third,
                output + g * division.group * to, first_order, one.description.weights_desc(), third_order);
    }
}

void forward(const Convolution &c, const float *input, const float *filter, float *output) {
    over_images<dnnl::convolution_forward>(
        c, input, long(c.H) * c.W * c.C, output, long(c.P) * c.Q * c.K, filter, describe_forward,
        [](const auto &made) {
            return std::make_tuple(DNNL_ARG_SRC, made.src_desc(), DNNL_ARG_DST, made.dst_desc());
        });
}

void backward_data(const Convolution &c, const float *filter, const float *dout, float *dinput) {
    over_images<dnnl::convolution_backward_data>(
        c, dout, long(c.P) * c.Q * c.K, dinput, long(c.H) * c.W * c.C, filter, describe_backward_data,
        [](const auto &made) {
            return std::make_tuple(DNNL_ARG_DIFF_DST, made.diff_dst_desc(), DNNL_ARG_DIFF_SRC, made.diff_src_desc());
        });
}

// Every thread sums for itself over a share that depends on their number alone; the sums are added in a fixed
// order.
void backward_filter(const Convolution &c, const float *input, const float *dout, float *dfilter) {
    long from = long(c.H) * c.W * c.C, to = long(c.P) * c.Q * c.K;
    Division division(c, images_together(c));
    auto make = [&](long images) -> const auto & {
        return made<dnnl::convolution_backward_weights>(c, images, division.threads, describe_backward_filter);
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
    std::vector<float *> sums(workers, nullptr);
#pragma omp parallel for schedule(static, 1) num_threads(workers) if (workers > 1)
    for (int worker = 0; worker < workers; worker++) {
        for (long first = start(worker), count; first < start(worker + 1); first += count) {
            count = std::min(division.group, start(worker + 1) - first);
            const auto &primitive = make(count);
            void *a = operand(input + first * from, scratch.a, kPrecision, count * from);
            void *b = operand(dout + first * to, scratch.b, kPrecision, count * to);
            bool fresh = sums[worker] == nullptr;
            auto *sum = static_cast<float *>(scratch.c.get(stored * 4));
            auto *part = fresh ? sum : static_cast<float *>(scratch.packed.get(stored * 4));
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
    reorder(order, sums[0], {c.filter(), Type::f32, Tag::hwio}, dfilter);
}

}  // namespace pixel_major

// A failure ends in the engine as an exception that blames memory; the reason goes to the JVM's errors.
template <typename Work>
int64_t guarded(int32_t threads, Work work) {
    omp_set_num_threads(std::max(threads, 1));  // of what this thread of the JVM starts
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
#define SHAPE Convolution{N, C, H, W, K, R, S, stride_h, stride_w, pad_h, pad_w, P, Q}

NATIVE(int64_t, conv2dDense)(JniEnv *env, Class, Array input, Array filter, Array ret, SHAPE_PARAMETERS) {
    Doubles X(env, input), F(env, filter), out(env, ret, true);
    return guarded(threads, [&] { return forward(SHAPE, X.data, F.data, out.data); });
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
    return guarded(threads, [&] { return backward_filter(SHAPE, X.data, D.data, dF.data); });
}

NATIVE(int64_t, conv2dBackwardDataDense)(JniEnv *env, Class, Array filter, Array dout, Array ret,
                                         SHAPE_PARAMETERS) {
    Doubles F(env, filter), D(env, dout), dX(env, ret, true);
    return guarded(threads, [&] { return backward_data(SHAPE, F.data, D.data, dX.data); });
}

// What the package's own operators call (sysds_resnet/engine/Native.java): pixel-major, in FP32. The engine itself
// calls it with its single precision alone, which it is not told of with this helper.
//
// Of images (N*H*W x C), the gradient wrt the outputs (N*P*Q x K) and filters (R*S*C x K), what is computed is the
// gradient of what is null: of filters, or of images. Without a gradient it is the outputs, and without filters
// too the images' t(X) * X, which is multiplied in FP32.
NATIVE(int64_t, sconv2dBiasAddDense)(JniEnv *env, Class, Object input, Object gradient, Object filter, Object ret,
                                     SHAPE_PARAMETERS) {
    Array arrays[] = {wrapped(env, input), wrapped(env, gradient), wrapped(env, filter), wrapped(env, ret)};
    Pinned<float> X(env, arrays[0]), D(env, arrays[1]), F(env, arrays[2]), out(env, arrays[3], true);
    auto shape = SHAPE;
    bool is_multiply = shape.is_multiply();
    return guarded(threads, [&]() -> int64_t {
        if (!D.data && !F.data)
            multiply_sums(Type::f32, X.data, true, X.data, out.data, C, N, C);
        else if (!D.data && is_multiply)
            multiply(kPrecision, X.data, F.data, out.data, N, C, K);
        else if (!D.data)
            pixel_major::forward(shape, X.data, F.data, out.data);
        else if (!F.data && is_multiply)
            multiply_sums(kPrecision, X.data, true, D.data, out.data, C, N, K);
        else if (!F.data)
            pixel_major::backward_filter(shape, X.data, D.data, out.data);
        else if (is_multiply)
            multiply_rows(kPrecision, D.data, F.data, true, out.data, N, K, C);
        else
            pixel_major::backward_data(shape, F.data, D.data, out.data);
        return 0;
    });
}
