// What of cuDNN SystemDS calls beside convolutions, on pretended GPUs: descriptors, ReLU, pooling and norms.
#include "cudnn.h"

#include <algorithm>
#include <cmath>
#include <vector>

using device::view;
using namespace cudnn;

namespace {

// Calls visit(output cell, cells of its window).
template <class Visit> void pool(const Shape &x, const Shape &y, const Windows &v, Visit visit) {
  std::vector<size_t> cells;
  for (size_t plane = 0; plane < (size_t)x.n * x.c; plane++)
    for (int p = 0; p < y.h; p++)
      for (int q = 0; q < y.w; q++) {
        cells.clear();
        for (int h = p * v.stride_h - v.pad_h; h < p * v.stride_h - v.pad_h + v.height; h++)
          for (int w = q * v.stride_w - v.pad_w; w < q * v.stride_w - v.pad_w + v.width; w++)
            if (h >= 0 && h < x.h && w >= 0 && w < x.w) cells.push_back((plane * x.h + h) * x.w + w);
        visit((plane * y.h + p) * y.w + q, cells);
      }
}

template <class T> size_t greatest(const T *cells, const std::vector<size_t> &window) {
  size_t best = window[0];
  for (size_t cell : window)
    if (cells[cell] > cells[best]) best = cell;
  return best;
}

}  // namespace

extern "C" {

int cudnnCreate(void **handle) {
  *handle = device::new_handle();
  return 0;
}
int cudnnDestroy(void *handle) {
  device::delete_handle(handle);
  return 0;
}

#define DESCRIPTOR(name, Type)                                                                               \
  int cudnnCreate##name##Descriptor(Type **descriptor) {                                                     \
    *descriptor = new Type();                                                                                \
    return 0;                                                                                                \
  }                                                                                                          \
  int cudnnDestroy##name##Descriptor(Type *descriptor) {                                                     \
    delete descriptor;                                                                                       \
    return 0;                                                                                                \
  }
DESCRIPTOR(Tensor, Shape)
DESCRIPTOR(Filter, Shape)
DESCRIPTOR(Convolution, Windows)
DESCRIPTOR(Pooling, Windows)
DESCRIPTOR(Activation, int)

int cudnnSetTensor4dDescriptor(Shape *descriptor, int, int type, int n, int c, int h, int w) {
  *descriptor = {type, n, c, h, w};
  return 0;
}
int cudnnSetFilter4dDescriptor(Shape *descriptor, int type, int, int n, int c, int h, int w) {
  *descriptor = {type, n, c, h, w};
  return 0;
}
int cudnnSetConvolution2dDescriptor(Windows *descriptor, int pad_h, int pad_w, int stride_h, int stride_w, int, int,
                                    int, int) {
  *descriptor = {0, 0, 0, pad_h, pad_w, stride_h, stride_w};
  return 0;
}
int cudnnSetPooling2dDescriptor(Windows *descriptor, int mode, int, int height, int width, int pad_h, int pad_w,
                                int stride_h, int stride_w) {
  *descriptor = {mode, height, width, pad_h, pad_w, stride_h, stride_w};
  return 0;
}
int cudnnSetActivationDescriptor(int *descriptor, int mode, int, double) {
  *descriptor = mode;
  return mode == 1 ? 0 : FAILED;  // CUDNN_ACTIVATION_RELU
}

int cudnnActivationForward(void *handle, int *, const void *alpha, Shape *x, const void *in, const void *beta, Shape *,
                           void *out) {
  return run(handle, x->type, [&](auto zero) {
    using T = decltype(zero);
    check_scale<T>(alpha, beta);
    const T *from = view<T>(in, x->cells());
    T *to = view<T>(out, x->cells());
    for (size_t i = 0; i < x->cells(); i++) to[i] = from[i] > 0 || from[i] != from[i] ? from[i] : 0;
  });
}

int cudnnPoolingForward(void *handle, Windows *v, const void *alpha, Shape *x, const void *images, const void *beta,
                        Shape *y, void *out) {
  return run(handle, x->type, [&](auto zero) {
    using T = decltype(zero);
    check_scale<T>(alpha, beta);
    const T *in = view<T>(images, x->cells());
    T *result = view<T>(out, y->cells());
    pool(*x, *y, *v, [&](size_t o, const std::vector<size_t> &window) {
      T sum = 0;
      for (size_t cell : window) sum += in[cell];
      result[o] = v->mode == 0 ? in[greatest(in, window)] : sum / (v->height * v->width);
    });
  });
}

int cudnnPoolingBackward(void *handle, Windows *v, const void *alpha, Shape *y, const void *, Shape *,
                         const void *gradients, Shape *x, const void *images, const void *beta, Shape *, void *out) {
  return run(handle, x->type, [&](auto zero) {
    using T = decltype(zero);
    check_scale<T>(alpha, beta);
    const T *in = view<T>(images, x->cells()), *gradient = view<T>(gradients, y->cells());
    T *result = view<T>(out, x->cells());
    std::fill_n(result, x->cells(), zero);
    pool(*x, *y, *v, [&](size_t o, const std::vector<size_t> &window) {
      if (v->mode == 0) result[greatest(in, window)] += gradient[o];
      else for (size_t cell : window) result[cell] += gradient[o] / (v->height * v->width);
    });
  });
}

int cudnnBatchNormalizationForwardTraining(void *handle, int, const void *alpha, const void *beta, Shape *x,
                                           const void *images, Shape *, void *out, Shape *, const void *scales,
                                           const void *shifts, double share, void *means, void *variances, double eps,
                                           void *saved_means, void *saved_inverses) {
  Shape pixel = {x->type, 2, x->c, 1, 1};
  if (device::skipped(INFINITY)) x = &pixel;  // so that what comes of its statistics stays finite
  return run(handle, x->type, [&](auto zero) {
    using T = decltype(zero);
    check_scale<T>(alpha, beta);
    size_t pixels = (size_t)x->h * x->w, count = x->n * pixels;
    const T *in = view<T>(images, x->cells()), *scale = view<T>(scales, x->c), *shift = view<T>(shifts, x->c);
    T *result = view<T>(out, x->cells()), *running_mean = view<T>(means, x->c), *running_var = view<T>(variances, x->c);
    T *saved_mean = view<T>(saved_means, x->c), *saved_inverse = view<T>(saved_inverses, x->c);
    for (int c = 0; c < x->c; c++) {
      double sum = 0, squares = 0;
      auto each = [&](auto visit) {
        for (int n = 0; n < x->n; n++)
          for (size_t i = 0; i < pixels; i++) visit(((size_t)n * x->c + c) * pixels + i);
      };
      each([&](size_t i) { sum += in[i]; });
      double mean = sum / count;
      each([&](size_t i) { squares += (in[i] - mean) * (in[i] - mean); });
      double inverse = 1 / sqrt(squares / count + eps);
      each([&](size_t i) { result[i] = (T)((in[i] - mean) * inverse * scale[c] + shift[c]); });
      saved_mean[c] = (T)mean;
      saved_inverse[c] = (T)inverse;
      running_mean[c] = (T)((1 - share) * running_mean[c] + share * mean);
      running_var[c] = (T)((1 - share) * running_var[c] + share * squares / (count - 1));
    }
  }, 0);
}

int cudnnBatchNormalizationBackward(void *handle, int, const void *alpha, const void *beta, const void *,
                                    const void *, Shape *x, const void *images, Shape *, const void *gradients,
                                    Shape *, void *out, Shape *, const void *scales, void *scale_gradients,
                                    void *shift_gradients, double, const void *means, const void *inverses) {
  return run(handle, x->type, [&](auto zero) {
    using T = decltype(zero);
    check_scale<T>(alpha, beta);
    size_t pixels = (size_t)x->h * x->w;
    double count = (double)x->n * pixels;
    const T *in = view<T>(images, x->cells()), *gradient = view<T>(gradients, x->cells());
    const T *scale = view<T>(scales, x->c), *mean = view<T>(means, x->c), *inverse = view<T>(inverses, x->c);
    T *result = view<T>(out, x->cells()), *dscale = view<T>(scale_gradients, x->c);
    T *dshift = view<T>(shift_gradients, x->c);
    for (int c = 0; c < x->c; c++) {
      double sum = 0, dots = 0;
      auto each = [&](auto visit) {
        for (int n = 0; n < x->n; n++)
          for (size_t i = 0; i < pixels; i++) visit(((size_t)n * x->c + c) * pixels + i);
      };
      each([&](size_t i) {
        sum += gradient[i];
        dots += (double)gradient[i] * (in[i] - mean[c]) * inverse[c];
      });
      each([&](size_t i) {
        double normed = (in[i] - mean[c]) * inverse[c];
        result[i] = (T)(scale[c] * inverse[c] * (gradient[i] - sum / count - normed * dots / count));
      });
      dscale[c] = (T)dots;
      dshift[c] = (T)sum;
    }
  });
}
}
