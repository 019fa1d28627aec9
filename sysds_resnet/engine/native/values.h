// Values on their way from and to the JVM's arrays: memory that is kept, conversions between FP64, FP32 and bf16, and
// parallel loops over parts of them.
#pragma once

#include <omp.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <initializer_list>

#include "errors.h"
#include "oneapi/dnnl/dnnl.hpp"

namespace helper {

using Type = dnnl::memory::data_type;

inline size_t size_of(Type type) { return type == Type::bf16 ? 2 : type == Type::f32 ? 4 : 8; }

// Values of type f64, f32 or bf16 that lie one after the other.
struct Values {
    void *data;
    Type type;

    Values at(long n) const { return {static_cast<char *>(data) + n * long(size_of(type)), type}; }
};

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
    Buffer a, b, c, packed, packed_whole, second, second_whole, work, sums;
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

inline float number_of(uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}

// Gives bits whose upper half is the nearest bf16 value, ties to even; NaN stays NaN.
inline uint32_t rounded_bits(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    bits += 0x7fff + ((bits >> 16) & 1);
    return value != value ? 0x7fc00000u : bits;
}

inline uint16_t rounded(float value) { return static_cast<uint16_t>(rounded_bits(value) >> 16); }
inline float widened(uint16_t value) { return number_of(uint32_t(value) << 16); }

#define FOR_EACH_PROCESSOR __attribute__((target_clones("avx512f", "avx2", "default"), noinline)) static

FOR_EACH_PROCESSOR void convert(const double *from, float *to, long n) {
    for (long i = 0; i < n; i++) to[i] = static_cast<float>(from[i]);
}

FOR_EACH_PROCESSOR void convert(const double *from, uint16_t *to, long n) {
    for (long i = 0; i < n; i++) to[i] = rounded(static_cast<float>(from[i]));
}

FOR_EACH_PROCESSOR void convert(const float *from, uint16_t *to, long n) {
    for (long i = 0; i < n; i++) to[i] = rounded(from[i]);
}

FOR_EACH_PROCESSOR void convert(const uint16_t *from, float *to, long n) {
    for (long i = 0; i < n; i++) to[i] = widened(from[i]);
}

// Adds a row of numbers to each row of `columns` values, and rounds the sums to bf16.
FOR_EACH_PROCESSOR void add_row(const float *from, const float *row, uint16_t *to, long rows, long columns) {
    for (long r = 0; r < rows; r++, from += columns, to += columns)
        for (long i = 0; i < columns; i++) to[i] = rounded(from[i] + row[i]);
}

FOR_EACH_PROCESSOR void add_row(const float *row, float *to, long rows, long columns) {
    for (long r = 0; r < rows; r++, to += columns)
        for (long i = 0; i < columns; i++) to[i] += row[i];
}

// Copies FP32 values to where they belong, in FP64, and gives the number of those other than 0.
FOR_EACH_PROCESSOR long give(const float *from, double *to, long n) {
    long zeros = 0;
    for (long i = 0; i < n; i++) {
        to[i] = from[i];
        zeros += from[i] == 0;
    }
    return n - zeros;
}

// Copies n values in another type, f32 or bf16.
inline void convert(Values from, Values to, long n) {
    auto *floats = static_cast<float *>(to.data);
    auto *halves = static_cast<uint16_t *>(to.data);
    if (from.type == to.type)
        std::memcpy(to.data, from.data, n * size_of(to.type));
    else if (from.type == Type::f64)
        to.type == Type::bf16 ? convert(static_cast<double *>(from.data), halves, n)
                              : convert(static_cast<double *>(from.data), floats, n);
    else if (to.type == Type::bf16)
        convert(static_cast<float *>(from.data), halves, n);
    else
        convert(static_cast<uint16_t *>(from.data), floats, n);
}

// Copies FP32 results to where they belong. For FP64 it gives the number of those other than 0, and for other types n,
// since nobody asks.
inline long give(const float *from, Values to, long n) {
    if (to.type == Type::f64) return give(from, static_cast<double *>(to.data), n);
    if (from != to.data) convert({const_cast<float *>(from), Type::f32}, to, n);
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

// Gives rows of `columns` values each, which are `stride` apart, as an operand of a type: in place if they have that
// type and no gaps, or else converted in `buffer`, without gaps.
inline void *operand(Values from, long stride, Buffer &buffer, Type type, long rows, long columns) {
    if (stride == columns) {
        columns *= rows;
        rows = 1;
    }
    if (rows == 1 && from.type == type) return from.data;
    Values to{buffer.get(rows * columns * size_of(type)), type};
    for (long r = 0; r < rows; r++) convert(from.at(r * stride), to.at(r * columns), columns);
    return to.data;
}

// Gives n values as an operand of a type, which all threads convert if need be.
inline void *operand(Values from, Buffer &buffer, Type type, long n) {
    if (from.type == type) return from.data;
    Values to{buffer.get(n * size_of(type)), type};
    over_parts(n, [&](long start, long part) { convert(from.at(start), to.at(start), part); });
    return to.data;
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
inline bool is_empty(Values result, long cells, long first_cells, long second_cells) {
    if (cells && first_cells && second_cells) return false;
    if (cells) std::memset(result.data, 0, cells * size_of(result.type));
    return true;
}

// Gives the memory in which a result of n values is computed in FP32: its own place if it is FP32, or else `buffer`.
inline float *place(Values result, Buffer &buffer, long n) {
    return static_cast<float *>(result.type == Type::f32 ? result.data : buffer.get(n * 4));
}

}  // namespace helper
