// The max pool (dml/layers/pixels/max_pool2d.dml) on images (N*H*W x C) of FP32 or bf16 values, with padding
// (K - 1) / 2. Each image is computed by one thread.
#pragma once

#include <vector>

#include "passes.h"

namespace helper::pool {

struct Sizes {
    long N, C, H, W, K, stride;

    long rows() const { return (H - 1) / stride + 1; }
    long columns() const { return (W - 1) / stride + 1; }
};

inline float number(float value) { return value; }
inline float number(uint16_t bits) { return widened(bits); }
inline void store(float value, float *to) { *to = value; }
inline void store(float value, uint16_t *to) { *to = rounded(value); }

template <typename Value>
struct Loops {
    // Keeps the larger of each two values; NaN is larger than all.
    FOR_EACH_PROCESSOR void keep_larger(Value *most, const Value *values, long n) {
#pragma GCC ivdep
        for (long i = 0; i < n; i++) {
            float other = number(values[i]);
            most[i] = other > number(most[i]) || other != other ? values[i] : most[i];
        }
    }

    // Adds the gradients of those maxima that are not found yet to a pixel that holds them.
    FOR_EACH_PROCESSOR void pass(float *sums, const Value *values, const Value *most, const Value *dout, float *sought,
                               long n) {
#pragma GCC ivdep
        for (long i = 0; i < n; i++) {
            bool here = (number(values[i]) == number(most[i])) & (sought[i] > 0);
            sums[i] += here ? number(dout[i]) : 0;
            sought[i] = here ? 0 : sought[i];
        }
    }

    FOR_EACH_PROCESSOR void round(const float *sums, Value *result, long n) {
        for (long i = 0; i < n; i++) store(sums[i], result + i);
    }
};

// Calls visit(out, pixel, is_first) for each pixel under each window of an image, in the order of rows, with the
// numbers of the window and of the pixel.
template <typename Visit>
void over_windows(const Sizes &of, Visit visit) {
    long radius = (of.K - 1) / 2;
    for (long p = 0; p < of.rows(); p++)
        for (long q = 0; q < of.columns(); q++) {
            bool is_first = true;
            for (long i = std::max(p * of.stride - radius, 0l); i <= std::min(p * of.stride + radius, of.H - 1); i++)
                for (long j = std::max(q * of.stride - radius, 0l); j <= std::min(q * of.stride + radius, of.W - 1);
                     j++, is_first = false)
                    visit(p * of.columns() + q, i * of.W + j, is_first);
        }
}

template <typename Work>
void over_images(const Sizes &of, Work work) {
    FirstError error;
#pragma omp parallel for schedule(static)
    for (long image = 0; image < of.N; image++) error.guard([&] { work(image); });
    error.rethrow();
}

template <typename Value>
void forward(const Sizes &of, const Value *images, Value *outputs) {
    over_images(of, [&](long image) {
        const Value *x = images + image * of.H * of.W * of.C;
        Value *out = outputs + image * of.rows() * of.columns() * of.C;
        over_windows(of, [&](long to, long pixel, bool is_first) {
            if (is_first)
                std::memcpy(out + to * of.C, x + pixel * of.C, of.C * sizeof *out);
            else
                Loops<Value>::keep_larger(out + to * of.C, x + pixel * of.C, of.C);
        });
    });
}

// Gives each gradient to the first pixel that holds the maximum of its window. A pixel's gradients are added in FP32.
template <typename Value>
void backward(const Sizes &of, const Value *dout, const Value *outputs, const Value *images, Value *gradient) {
    over_images(of, [&](long image) {
        static thread_local std::vector<float> sums, sought;  // sought: 1 until a window's maximum is found, then 0
        long pixels = of.H * of.W * of.C, windows = of.rows() * of.columns() * of.C;
        sums.assign(pixels, 0);
        sought.resize(of.C);
        const Value *x = images + image * pixels, *most = outputs + image * windows, *d = dout + image * windows;
        over_windows(of, [&](long from, long pixel, bool is_first) {
            if (is_first) std::fill(sought.begin(), sought.end(), 1);
            Loops<Value>::pass(sums.data() + pixel * of.C, x + pixel * of.C, most + from * of.C, d + from * of.C,
                               sought.data(), of.C);
        });
        Loops<Value>::round(sums.data(), gradient + image * pixels, pixels);
    });
}

}  // namespace helper::pool
