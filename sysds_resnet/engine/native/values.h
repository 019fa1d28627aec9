// Values on their way from and to the JVM's arrays: memory that is kept, conversions between FP64, FP32 and bf16, and
// parallel loops over parts of them.
#pragma once

#include <omp.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <type_traits>

#include "errors.h"
#include "oneapi/dnnl/dnnl.hpp"

namespace helper {

using Type = dnnl::memory::data_type;

inline size_t size_of(Type type) { return type == Type::bf16 ? 2 : 4; }

// Memory that is kept from call to call, because fresh pages cost as much time as the multiply.
class Buffer {
  public:
    Buffer() = default;
    ~Buffer() { std::free(data_); }
    Buffer(const Buffer &) = delete;
    Buffer &operator=(const Buffer &) = delete;

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
    Buffer a, b, c, packed, packed_whole, work, sums;
};
inline thread_local Scratch scratch;

// A sum for each worker, in the memory of the thread that makes this object. A worker is a share of the work, whichever
// thread does it.
class Sums {
  public:
    Sums(int workers, long size) : stride_((size * 4 + 4095) / 4096 * 1024) {
        data_ = static_cast<float *>(scratch.sums.get(size_t(workers) * stride_ * 4));
    }
    float *operator[](int worker) const { return data_ + worker * stride_; }

  private:
    long stride_;
    float *data_;
};

__attribute__((target_clones("avx512f", "avx2", "default")))
static void to_f32(const double *from, float *to, long n) {
    for (long i = 0; i < n; i++) to[i] = static_cast<float>(from[i]);
}

static void to_f32(const float *from, float *to, long n) { std::memcpy(to, from, n * sizeof *to); }

// Gives the bits of the nearest bf16 value, ties to even; NaN stays NaN.
inline uint16_t rounded(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    return static_cast<uint16_t>(value != value ? 0x7fc0 : (bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

__attribute__((target_clones("avx512f", "avx2", "default")))
static void to_bf16(const double *from, uint16_t *to, long n) {
    for (long i = 0; i < n; i++) to[i] = rounded(static_cast<float>(from[i]));
}

__attribute__((target_clones("avx512f", "avx2", "default")))
static void to_bf16(const float *from, uint16_t *to, long n) {
    for (long i = 0; i < n; i++) to[i] = rounded(from[i]);
}

// Copies a result to where it belongs, and gives the number of its values other than 0.
__attribute__((target_clones("avx512f", "avx2", "default")))
static long give(const float *from, double *to, long n) {
    long zeros = 0;
    for (long i = 0; i < n; i++) {
        to[i] = from[i];
        zeros += from[i] == 0;
    }
    return n - zeros;
}

// Gives n for FP32 results: nobody asks how many of their values are 0.
static long give(const float *from, float *to, long n) {
    if (from != to) std::memcpy(to, from, n * sizeof *to);
    return n;
}

// Calls run(start, count) in each thread, for its part of the range from 0 to size.
template <typename Run>
void over_parts(long size, Run run) {
    if (size <= 0) return;
    FirstError error;
    long part = (size + omp_get_max_threads() - 1) / omp_get_max_threads();
#pragma omp parallel for schedule(static)
    for (long start = 0; start < size; start += part)
        error.guard([&] { run(start, std::min(part, size - start)); });
    error.rethrow();
}

// Converts rows of `columns` values each, which are `stride` apart in `from`, and without gaps in `to`.
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

// Gives such rows as an operand of a type: in place if they have that type and no gaps, or else converted in `buffer`.
template <typename Value>
void *operand(const Value *from, long stride, Buffer &buffer, Type type, long rows, long columns) {
    if (std::is_same<Value, float>::value && type == Type::f32 && stride == columns)
        return const_cast<Value *>(from);
    void *to = buffer.get(rows * columns * size_of(type));
    convert(from, stride, to, type, rows, columns);
    return to;
}

// Gives n values as an operand of a type, which all threads convert if need be.
template <typename Value>
void *operand(const Value *from, Buffer &buffer, Type type, long n) {
    if (std::is_same<Value, float>::value && type == Type::f32) return const_cast<Value *>(from);
    void *to = buffer.get(n * size_of(type));
    over_parts(n, [&](long start, long part) {
        convert(from + start, part, static_cast<char *>(to) + start * size_of(type), type, 1, part);
    });
    return to;
}

// Checks that an array of the JVM can hold as many values as the product of some sizes. Products of three such sizes
// then fit a long.
inline void check_cells(std::initializer_list<long> sizes) {
    long cells = 1;
    for (long size : sizes) {
        if (size < 0) throw Failure(kWrongSizes, "found a negative size");
        if (__builtin_mul_overflow(cells, size, &cells))
            throw Failure(kWrongSizes, "found more values than a number can say");
    }
    if (cells > INT32_MAX) throw Failure(kWrongSizes, "found more values than an array holds");
}

// Tells whether a result has no values, or sums over nothing; in the second case, sets its values to 0.
template <typename Value>
bool is_empty(Value *result, long cells, long first_cells, long second_cells) {
    if (cells && first_cells && second_cells) return false;
    if (cells) std::memset(result, 0, cells * sizeof *result);
    return true;
}

// Gives the memory in which a result of n values is computed: its own place if it is FP32, or else `buffer`.
inline float *place(double *, Buffer &buffer, long n) { return static_cast<float *>(buffer.get(n * 4)); }
inline float *place(float *result, Buffer &, long) { return result; }

}  // namespace helper
