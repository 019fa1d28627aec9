// Convolutions of which each output sees each pixel of its image: 1 x 1 convolutions of single pixels, and those whose
// filters reach across small images. In the pixel-major layout they are products of the images (N x H*W*C) with a
// factor (H*W*C x P*Q*K), in which the filters stand once for each pair of a pixel and an output.
#pragma once

#include <cstring>

#include "convolution.h"

namespace helper::pixel_major {

class Product {
  public:
    explicit Product(const Convolution &c) : c_(c), rows_(long(c.H) * c.W * c.C), columns_(long(c.P) * c.Q * c.K) {}

    void forward(Values input, const float *filter, Values output) const {
        multiply(kPrecision, input, factor(filter), output, c_.N, rows_, columns_);
    }
    void backward_data(const float *filter, Values dout, Values dinput) const {
        multiply_rows(kPrecision, dout, factor(filter), true, dinput, c_.N, columns_, rows_);
    }
    void backward_filter(Values input, Values dout, float *dfilter) const {
        bool is_filter = c_.is_multiply();
        auto *gradient = is_filter ? dfilter : static_cast<float *>(scratch.second.get(rows_ * columns_ * 4));
        multiply_sums(kPrecision, input, true, dout, {gradient, Type::f32}, rows_, c_.N, columns_);
        if (!is_filter) add_pairs(gradient, dfilter);
    }

  private:
    Values factor(const float *filter) const {
        if (c_.is_multiply()) return {const_cast<float *>(filter), Type::f32};
        auto *factor = static_cast<float *>(scratch.second.get(rows_ * columns_ * 4));
#pragma omp parallel for schedule(static)
        for (long row = 0; row < rows_; row++)
            for (long output = 0; output < long(c_.P) * c_.Q; output++)
                std::memcpy(factor + row * columns_ + output * c_.K, filter + place(row / c_.C, row % c_.C, output),
                            c_.K * sizeof *factor);
        return {factor, Type::f32};
    }

    // Adds up the gradient with respect to the factor, in which filters stand several times. No two channels of images
    // have values of filters in common, so that each is one thread's.
    void add_pairs(const float *gradient, float *dfilter) const {
#pragma omp parallel for schedule(static)
        for (long channel = 0; channel < c_.C; channel++) {
            for (long tap = 0; tap < long(c_.R) * c_.S; tap++)
                std::memset(dfilter + (tap * c_.C + channel) * c_.K, 0, c_.K * sizeof *dfilter);
            for (long pixel = 0; pixel < long(c_.H) * c_.W; pixel++)
                for (long output = 0; output < long(c_.P) * c_.Q; output++) {
                    auto *from = gradient + (pixel * c_.C + channel) * columns_ + output * c_.K;
                    auto *to = dfilter + place(pixel, channel, output);
                    for (long k = 0; k < c_.K; k++) to[k] += from[k];
                }
        }
    }

    // Gives the place of the first value of filters that a channel of a pixel is multiplied with for an output.
    long place(long pixel, long channel, long output) const {
        long row = pixel / c_.W + c_.pad_h - output / c_.Q * c_.stride_h;
        long column = pixel % c_.W + c_.pad_w - output % c_.Q * c_.stride_w;
        return ((row * c_.S + column) * c_.C + channel) * c_.K;
    }

    const Convolution &c_;
    long rows_, columns_;
};

// Tells whether each output sees each pixel.
inline bool is_product(const Convolution &c) {
    auto reaches = [](long pixels, long outputs, long taps, long stride, long padding) {
        return pixels - 1 + padding < taps && (outputs - 1) * stride <= padding;
    };
    return reaches(c.H, c.P, c.R, c.stride_h, c.pad_h) && reaches(c.W, c.Q, c.S, c.stride_w, c.pad_w);
}

}  // namespace helper::pixel_major
