// The passes over activations that stand between convolutions, and those over a network's tensors in an update
// (dml/layers/pixels/pixelwise.dml), on FP32 or bf16 values. Arithmetic on FP32 values is FP64, and on bf16 values
// FP32, except that sums of many values are FP64.
#pragma once

#include <cmath>
#include <cstring>
#include <vector>

#include "values.h"

namespace helper::passes {

// The numbers by which engine/operators/table.py knows the passes.
enum Pass : int32_t {
    kNormRelu = 1, kNormAddRelu, kShiftRelu, kShiftAddRelu, kReluBackward, kReluBackwardAdd, kSumBackward,
    kNormBackward, kNormReluBackward, kScaled, kWeightedSum, kWeightedSumInPlace, kWeightedSquare, kOverRoot, kSums,
    kSquares, kMoments, kDots, kReluDots, kPool, kPoolBackward,
};

template <typename Number>
inline Number relu(Number value) { return value <= 0 ? 0 : value; }  // NaN stays NaN

// Gives a gradient where the output of a ReLU is positive.
template <typename Number>
inline Number gated(Number dout, Number out) { return out > 0 ? dout : 0; }

// Formulas of a value from those of the result's place r and of the operands a, b and c, and from the rows p, q and s.
#define FORMULA(name, formula)                                                              \
    struct name {                                                                           \
        template <typename Number>                                                          \
        static Number of([[maybe_unused]] Number r, [[maybe_unused]] Number a,              \
                         [[maybe_unused]] Number b, [[maybe_unused]] Number c,              \
                         [[maybe_unused]] Number p, [[maybe_unused]] Number q,              \
                         [[maybe_unused]] Number s) {                                       \
            return formula;                                                                 \
        }                                                                                   \
    };
FORMULA(NormRelu, relu(a * p + q))
FORMULA(NormAddRelu, relu(a * p + q + b))
FORMULA(ShiftRelu, relu(r + p))
FORMULA(ShiftAddRelu, relu(r + p + a))
FORMULA(ReluBackward, gated(r, a))
FORMULA(ReluBackwardAdd, gated(r + a, b))
FORMULA(SumBackward, r + a)
FORMULA(NormBackward, a * p - r * q - s)
FORMULA(NormReluBackward, gated(r, a) * p - b * q - s)
FORMULA(Scaled, a * p)
FORMULA(WeightedSum, a * p + b * q + c * s)
FORMULA(WeightedSumOfTwo, a * p + b * q)
FORMULA(WeightedSumInPlace, a * p + r * q + b * s)
FORMULA(WeightedSquare, a * p + b * b * q)
FORMULA(OverRoot, a / (std::sqrt(b) + p))

// Formulas of two summands, of which the first `number` are used, from the operands a, b and c.
#define SUMMANDS(name, number, first, second)                                               \
    struct name {                                                                           \
        static constexpr long count = number;                                               \
        template <typename Number>                                                          \
        static void of([[maybe_unused]] Number a, [[maybe_unused]] Number b,                \
                       [[maybe_unused]] Number c, Number &one, Number &other) {             \
            one = first;                                                                    \
            other = second;                                                                 \
        }                                                                                   \
    };
SUMMANDS(Sums, 1, a, 0)
SUMMANDS(Squares, 1, a * a, 0)
SUMMANDS(Moments, 2, a, a * a)
SUMMANDS(Dots, 2, a, a * b)
SUMMANDS(ReluDots, 2, gated(a, b), gated(a, b) * c)

// What a pass works on. Rows are repeated to a tile of several rows of the matrices, an even number of values. Where
// numbers stand in place of rows, there is one column.
struct Operands {
    void *result;
    const void *a, *b, *c;
    const double *rows;
    long columns, cells;

    long tile() const { return columns * ((1023 + columns) / columns * 2) / (columns % 2 ? 1 : 2); }
};

// Loops over FP32 values.
struct Singles {
    using Number = double;
    using Stored = float;

    template <typename Formula>
    struct Map {
        FOR_EACH_PROCESSOR void run(float *r, const float *a, const float *b, const float *c, const double *rows,
                                  long tile, long n) {
#pragma GCC ivdep
            for (long i = 0; i < n; i++)
                r[i] = float(Formula::of(double(r[i]), double(a[i]), double(b[i]), double(c[i]), rows[i],
                                         rows[tile + i], rows[2 * tile + i]));
        }
    };

    template <typename Summands>
    struct Add {
        FOR_EACH_PROCESSOR void run(double *sums, const float *a, const float *b, const float *c, long tile, long n) {
#pragma GCC ivdep
            for (long i = 0; i < n; i++) {
                double one, other;
                Summands::of(double(a[i]), double(b[i]), double(c[i]), one, other);
                sums[i] += one;
                if constexpr (Summands::count > 1) sums[tile + i] += other;
            }
        }
    };

    static long place(long i, long) { return i; }  // of the i-th value of a tile among its sums or in a row
};

// Loops over bf16 values in pairs, of which the first is the lower half of 32 bits. In rows and sums, the first ones of
// all pairs come before the others.
struct Pairs {
    using Number = float;
    using Stored = uint16_t;

    template <typename Formula>
    struct Map {
        FOR_EACH_PROCESSOR void run(uint16_t *result, const uint16_t *first, const uint16_t *second,
                                  const uint16_t *third, const float *rows, long tile, long n) {
            auto *r = reinterpret_cast<uint32_t *>(result);
            auto *a = reinterpret_cast<const uint32_t *>(first), *b = reinterpret_cast<const uint32_t *>(second),
                 *c = reinterpret_cast<const uint32_t *>(third);
            const float *p = rows, *q = p + tile, *s = q + tile, *p1 = p + tile / 2, *q1 = q + tile / 2,
                        *s1 = s + tile / 2;
#pragma GCC ivdep
            for (long i = 0; i < (n + 1) / 2; i++) {
                uint32_t low = rounded_bits(Formula::of(number_of(r[i] << 16), number_of(a[i] << 16),
                                                        number_of(b[i] << 16), number_of(c[i] << 16),
                                                        p[i], q[i], s[i]));
                uint32_t high = rounded_bits(Formula::of(number_of(r[i] & 0xffff0000), number_of(a[i] & 0xffff0000),
                                                         number_of(b[i] & 0xffff0000), number_of(c[i] & 0xffff0000),
                                                         p1[i], q1[i], s1[i]));
                r[i] = low >> 16 | (high & 0xffff0000);
            }
        }
    };

    template <typename Summands>
    struct Add {
        FOR_EACH_PROCESSOR void run(float *sums, const uint16_t *first, const uint16_t *second, const uint16_t *third,
                                  long tile, long n) {
            auto *a = reinterpret_cast<const uint32_t *>(first), *b = reinterpret_cast<const uint32_t *>(second),
                 *c = reinterpret_cast<const uint32_t *>(third);
            float *low = sums, *low_other = sums + tile, *high = low + tile / 2, *high_other = low_other + tile / 2;
#pragma GCC ivdep
            for (long i = 0; i < (n + 1) / 2; i++) {
                float one, other;
                Summands::of(number_of(a[i] << 16), number_of(b[i] << 16), number_of(c[i] << 16), one, other);
                low[i] += one;
                if constexpr (Summands::count > 1) low_other[i] += other;
            }
#pragma GCC ivdep
            for (long i = 0; i < n / 2; i++) {
                float one, other;
                Summands::of(number_of(a[i] & 0xffff0000), number_of(b[i] & 0xffff0000),
                             number_of(c[i] & 0xffff0000), one, other);
                high[i] += one;
                if constexpr (Summands::count > 1) high_other[i] += other;
            }
        }
    };

    static long place(long i, long tile) { return i / 2 + i % 2 * (tile / 2); }
};

constexpr long kLeastShared = 1 << 16;  // the fewest values that are worth several threads

// Calls run(part, first, end) for the tiles of each thread's part.
template <typename Run>
void over_tiles(const Operands &of, Run run) {
    long tiles = (of.cells + of.tile() - 1) / of.tile();
    long parts = of.cells < kLeastShared ? 1 : std::min<long>(omp_get_max_threads(), tiles);
    FirstError error;
#pragma omp parallel for schedule(static, 1) num_threads(parts) if (parts > 1)
    for (long part = 0; part < parts; part++)
        error.guard([&] { run(part, tiles * part / parts, tiles * (part + 1) / parts); });
    error.rethrow();
}

template <typename Kind, typename Formula>
void map(const Operands &of) {
    using Number = typename Kind::Number;
    using Stored = typename Kind::Stored;
    long tile = of.tile(), count = of.rows ? 3 : 0;
    std::vector<Number> rows(3 * tile);
    for (long k = 0; k < count; k++)
        for (long i = 0; i < tile; i++)
            rows[k * tile + Kind::place(i, tile)] = Number(of.rows[k * of.columns + i % of.columns]);
    auto *r = static_cast<Stored *>(of.result);
    auto *a = static_cast<const Stored *>(of.a ? of.a : of.result);
    auto *b = static_cast<const Stored *>(of.b ? of.b : of.result);
    auto *c = static_cast<const Stored *>(of.c ? of.c : of.result);
    over_tiles(of, [&](long, long first, long end) {
        for (long start = first * tile; start < std::min(end * tile, of.cells); start += tile)
            Kind::template Map<Formula>::run(r + start, a + start, b + start, c + start, rows.data(), tile,
                                             std::min(tile, of.cells - start));
    });
}

// Sums values over the rows. Numbers of low precision are added over 64 tiles at a time. The parts of the threads are
// added in a fixed order.
template <typename Kind, typename Summands>
void sum(const Operands &of) {
    using Number = typename Kind::Number;
    using Stored = typename Kind::Stored;
    constexpr long kTogether = 64;
    long tile = of.tile();
    std::vector<double> sums(omp_get_max_threads() * 2 * tile);
    auto *a = static_cast<const Stored *>(of.a);
    auto *b = static_cast<const Stored *>(of.b ? of.b : of.a);
    auto *c = static_cast<const Stored *>(of.c ? of.c : of.a);
    over_tiles(of, [&](long part, long first, long end) {
        static thread_local std::vector<Number> some;
        double *own = sums.data() + part * 2 * tile;
        for (long together = first; together < end; together += kTogether) {
            some.assign(2 * tile, 0);
            for (long t = together; t < std::min(end, together + kTogether); t++)
                Kind::template Add<Summands>::run(some.data(), a + t * tile, b + t * tile, c + t * tile, tile,
                                                  std::min(tile, of.cells - t * tile));
            for (long i = 0; i < 2 * tile; i++) own[i] += some[i];
        }
    });
    auto *result = static_cast<double *>(of.result);
    long threads = omp_get_max_threads(), count = Summands::count;
    for (long k = 0; k < count; k++)
        for (long i = 0; i < of.columns; i++) result[k * of.columns + i] = 0;
    for (long part = 0; part < threads; part++)
        for (long k = 0; k < count; k++)
            for (long i = 0; i < tile; i++)
                result[k * of.columns + i % of.columns] += sums[(part * 2 + k) * tile + Kind::place(i, tile)];
}

template <typename Kind>
void run(int32_t pass, const Operands &of) {
    switch (pass) {
        case kNormRelu: return map<Kind, NormRelu>(of);
        case kNormAddRelu: return map<Kind, NormAddRelu>(of);
        case kShiftRelu: return map<Kind, ShiftRelu>(of);
        case kShiftAddRelu: return map<Kind, ShiftAddRelu>(of);
        case kReluBackward: return map<Kind, ReluBackward>(of);
        case kReluBackwardAdd: return map<Kind, ReluBackwardAdd>(of);
        case kSumBackward: return map<Kind, SumBackward>(of);
        case kNormBackward: return map<Kind, NormBackward>(of);
        case kNormReluBackward: return map<Kind, NormReluBackward>(of);
        case kScaled: return map<Kind, Scaled>(of);
        case kWeightedSum:
            return of.rows[2] == 0 ? map<Kind, WeightedSumOfTwo>(of) : map<Kind, WeightedSum>(of);
        case kWeightedSumInPlace: return map<Kind, WeightedSumInPlace>(of);
        case kWeightedSquare: return map<Kind, WeightedSquare>(of);
        case kOverRoot: return map<Kind, OverRoot>(of);
        case kSums: return sum<Kind, Sums>(of);
        case kSquares: return sum<Kind, Squares>(of);
        case kMoments: return sum<Kind, Moments>(of);
        case kDots: return sum<Kind, Dots>(of);
        case kReluDots: return sum<Kind, ReluDots>(of);
        default: throw Failure(kWrongSizes, "found no pass of this number");
    }
}

}  // namespace helper::passes
