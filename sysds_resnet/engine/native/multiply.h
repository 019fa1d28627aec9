// Products of row-major matrices. Functions with FP64 results return the number of their values other than 0.
#pragma once

#include <cstring>
#include <map>
#include <mutex>
#include <tuple>
#include <utility>

#include "onednn.h"

namespace helper {

// A multiply (m x k) * (k x n) by a primitive that is made once for each shape, and for one thread: it is the blocks of
// a product that are spread over threads.
struct Multiply {
    Type type;
    long m, k, n;
    bool transposed;   // the first operand is stored as (k x m)
    bool accumulated;  // the product is added to what the result holds
    bool packed;       // the second operand is in oneDNN's own order
    Type result_type = Type::f32;

    auto key() const { return std::tie(type, m, k, n, transposed, accumulated, packed, result_type); }
    bool operator<(const Multiply &other) const { return key() < other.key(); }

    dnnl::memory::desc first() const { return {{m, k}, type, transposed ? Tag::ba : Tag::ab}; }
    dnnl::memory::desc second() const { return {{k, n}, type, packed ? Tag::any : Tag::ab}; }
    dnnl::memory::desc result() const { return {{m, n}, result_type, Tag::ab}; }

    const dnnl::matmul::primitive_desc &described() const { return made().first; }

    void run(void *a, void *b, void *c) const {
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
            auto attributes = shared_attributes();
            if (accumulated) {
                dnnl::post_ops sum;
                sum.append_sum();
                attributes.set_post_ops(sum);
            }
            ThreadsForNow one(1);
            dnnl::matmul::primitive_desc description(cpu(), first(), second(), result(), attributes);
            found = all.emplace(*this, Made{description, dnnl::matmul(description)}).first;
        }
        return found->second;
    }
};

constexpr long kBlockBytes = 384 * 1024;  // the operands and the result of a block: most of a core's L2 cache

// Gives the rows of a block if each row needs `bytes`: a multiple of 16, and few enough that all threads have blocks.
inline long block_rows(long rows, long bytes) {
    long fitting = std::max(kBlockBytes / std::max(bytes, 1l), 64l);
    long share = (rows + omp_get_max_threads() - 1) / omp_get_max_threads();
    return (std::min(fitting, share) + 15) / 16 * 16;
}

inline void check_product(long m, long k, long n) {
    check_cells({m, k});
    check_cells({k, n});
    check_cells({m, n});
}

// A factor in oneDNN's own order, which may differ between a whole block of rows and the last one.
struct Packed {
    void *whole, *last;

    Packed(const Multiply &of_whole, const Multiply &of_last, const dnnl::memory::desc &plain_order, void *plain,
           Buffer &buffer, Buffer &buffer_whole) {
        auto pack = [&](const dnnl::memory::desc &order, Buffer &to) {
            void *data = to.get(order.get_size());
            reorder(plain_order, plain, order, data);
            return data;
        };
        auto order = of_last.described().weights_desc(), order_whole = of_whole.described().weights_desc();
        last = pack(order, buffer);
        whole = order == order_whole ? last : pack(order_whole, buffer_whole);
    }
    void *get(bool is_last) const { return is_last ? last : whole; }
};

// Computes C = A * B, or C = A * t(B) with B (n x k), by blocks of rows, which suits many rows. B is brought into
// oneDNN's order once.
inline long multiply_rows(Type type, Values A, Values B, bool transposed, Values C, long m, long k, long n) {
    if (is_empty(C, m * n, m * k, k * n)) return 0;
    Type computed = C.type == Type::bf16 ? Type::bf16 : Type::f32;
    long rows = block_rows(m, k * size_of(type) + n * size_of(computed));
    long blocks = (m + rows - 1) / rows, rest = m - (blocks - 1) * rows;
    Multiply whole{type, rows, k, n, false, false, true, computed}, last = whole;
    last.m = rest;

    void *plain = operand(B, scratch.c, Type::f32, k * n);
    dnnl::memory::desc plain_order({k, n}, Type::f32, transposed ? Tag::ba : Tag::ab);
    Packed factor(whole, last, plain_order, plain, scratch.packed, scratch.packed_whole);

    long nonzeros = 0;
    FirstError error;
#pragma omp parallel for schedule(dynamic) reduction(+ : nonzeros)
    for (long block = 0; block < blocks; block++)
        error.guard([&] {
            bool is_last = block == blocks - 1;
            long count = is_last ? rest : rows;
            Values result = C.at(block * rows * n);
            void *a = operand(A.at(block * rows * k), k, scratch.a, type, count, k);
            void *c = C.type == computed ? result.data : scratch.b.get(rows * n * 4);
            (is_last ? last : whole).run(a, factor.get(is_last), c);
            nonzeros += C.type == computed ? count * n : give(static_cast<float *>(c), result, count * n);
        });
    error.rethrow();
    return nonzeros;
}

// Computes C = A * B, or C = t(A) * B with A (k x m), by blocks of the k that is summed over, which suits long sums.
// Every worker has a sum of its own over a share that depends on the number of workers alone, and these sums are added
// in a fixed order.
inline long multiply_sums(Type type, Values A, bool transposed, Values B, Values C, long m, long k, long n) {
    if (is_empty(C, m * n, m * k, k * n)) return 0;
    int workers = omp_get_max_threads();
    long share = (k + workers - 1) / workers;
    long rows = std::min(std::max(kBlockBytes / ((m + n) * long(size_of(type))) / 16 * 16, 64l), share);
    Multiply shape{type, m, rows, n, transposed, true, false};
    shape.described();
    Sums sums(workers, m * n);
    FirstError error;
#pragma omp parallel for schedule(static, 1) num_threads(workers)
    for (int worker = 0; worker < workers; worker++)
        error.guard([&] {
            long end = std::min(k, (worker + 1) * share);
            std::memset(sums[worker], 0, m * n * 4);
            for (long r = worker * share; r < end; r += rows) {
                long count = std::min(rows, end - r);
                void *a = transposed ? operand(A.at(r * m), m, scratch.a, type, count, m)
                                     : operand(A.at(r), k, scratch.a, type, m, count);
                void *b = operand(B.at(r * n), n, scratch.b, type, count, n);
                Multiply part = shape;
                part.k = count;
                part.run(a, b, sums[worker]);
            }
        });
    error.rethrow();
    long nonzeros = 0, size = m * n, part = (size + workers - 1) / workers;
#pragma omp parallel for schedule(static) reduction(+ : nonzeros)
    for (long start = 0; start < size; start += part) {
        long end = std::min(size, start + part);
        float *sum = sums[0];
        for (int worker = 1; worker < workers; worker++)
            for (long i = start; i < end; i++) sum[i] += sums[worker][i];
        nonzeros += give(sum + start, C.at(start), end - start);
    }
    return nonzeros;
}

// Computes C = A * t(W_A) + B * t(W_B) + t(w) for A (m x f), B (m x k) and W = [W_A, W_B, w] (k x f + k + 1), by
// blocks of rows. The sum is FP32, and is rounded once where C is bf16.
inline void multiply_joined(Type type, Values A, Values B, const float *W, Values C, long m, long f, long k) {
    if (!(m * k)) return;
    long rows = block_rows(m, (f + k) * size_of(type) + k * 4), columns = f + k + 1;
    long blocks = (m + rows - 1) / rows, rest = m - (blocks - 1) * rows;
    Multiply of_a{type, rows, f, k, false, false, true}, of_b{type, rows, k, k, false, true, true};
    Multiply last_a = of_a, last_b = of_b;
    last_a.m = last_b.m = rest;
    auto *plain = const_cast<float *>(W);
    dnnl::memory::desc a_order({f, k}, Type::f32, Dims{1, columns}), b_order({k, k}, Type::f32, Dims{1, columns});
    Packed a_factor(of_a, last_a, a_order, plain, scratch.packed, scratch.packed_whole);
    Packed b_factor(of_b, last_b, b_order, plain + f, scratch.second, scratch.second_whole);
    auto *constant = static_cast<float *>(scratch.c.get(k * 4));
    for (long i = 0; i < k; i++) constant[i] = W[i * columns + f + k];
    FirstError error;
#pragma omp parallel for schedule(dynamic)
    for (long block = 0; block < blocks; block++)
        error.guard([&] {
            bool is_last = block == blocks - 1;
            long start = block * rows, count = is_last ? rest : rows;
            Values result = C.at(start * k);
            float *sum = place(result, scratch.b, rows * k);
            void *a = operand(A.at(start * f), f, scratch.a, type, count, f);
            (is_last ? last_a : of_a).run(a, a_factor.get(is_last), sum);
            void *b = operand(B.at(start * k), k, scratch.a, type, count, k);
            (is_last ? last_b : of_b).run(b, b_factor.get(is_last), sum);
            if (C.type == Type::bf16)
                add_row(sum, constant, static_cast<uint16_t *>(result.data), count, k);
            else
                add_row(constant, sum, count, k);
        });
    error.rethrow();
}

inline long multiply(Type type, Values A, Values B, Values C, long m, long k, long n) {
    bool long_sums = k > 4 * std::max(m, n) && C.type != Type::bf16;
    return long_sums ? multiply_sums(type, A, false, B, C, m, k, n) : multiply_rows(type, A, B, false, C, m, k, n);
}

}  // namespace helper
