// What of cuDNN SystemDS calls, on pretended GPUs: images and filters channel by channel, nothing in half precision.
//
#include "device.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

using device::view;

namespace {

constexpr int FAILED = 5000;  // CUDNN_STATUS_EXECUTION_FAILED
// What is suggested for a convolution, the fastest first. Only the last can be had: it repeats itself, in memory that
// is there, on which it insists.
constexpr int TOO_LARGE = 3, UNREPEATABLE = 0, RIGHT = 1;  // algorithms
constexpr size_t WORKING_MEMORY = 1 << 10;

struct Shape {
  int type, n, c, h, w;  // type 0: FP32, 1: FP64

  size_t cells() const { return (size_t)n * c * h * w; }
};
struct Windows {
  int mode = 0, height = 0, width = 0, pad_h, pad_w, stride_h, stride_w;
};

template <class Function> int run(void *handle, int type, Function function, double cells = INFINITY) {
  if (device::skipped(cells)) return 0;
  return device::guarded(FAILED, [&] {
    device::check_handle(handle);
    type ? function(double()) : function(float());
  });
}

template <class T> void check_scale(const void *alpha, const void *beta) {
  if (*(T *)alpha != 1 || *(T *)beta != 0) throw std::runtime_error("scaled results");
}

// As the GPU multiplies it.
template <class T> std::vector<T> factor(const void *cells, size_t count) {
  const T *from = view<T>(cells, count);
  std::vector<T> out(from, from + count);
  for (T &value : out) value = device::rounded(value);
  return out;
}

// Calls visit(place, image cell) for the patches that filters see: place is that of a pixel of a patch in a matrix with
// a row for each pixel of the filter, (C, R, S), and a column for each pixel of the output, (N, P, Q).
template <class Visit> void patches(const Shape &x, const Shape &f, const Shape &y, const Windows &v, Visit visit) {
  size_t place = 0;
  for (int c = 0; c < f.c; c++)
    for (int r = 0; r < f.h; r++)
      for (int s = 0; s < f.w; s++)
        for (int n = 0; n < y.n; n++)
          for (int p = 0; p < y.h; p++)
            for (int q = 0; q < y.w; q++, place++) {
              int h = p * v.stride_h + r - v.pad_h, w = q * v.stride_w + s - v.pad_w;
              if (h >= 0 && h < x.h && w >= 0 && w < x.w) visit(place, (((size_t)n * x.c + c) * x.h + h) * x.w + w);
            }
}

template <class T> std::vector<T> transposed(const std::vector<T> &cells, size_t rows) {
  size_t cols = cells.size() / rows;
  std::vector<T> out(cells.size());
  for (size_t i = 0; i < rows; i++)
    for (size_t j = 0; j < cols; j++) out[j * rows + i] = cells[i * cols + j];
  return out;
}

// Images (N, K, PQ) as a matrix (K, NPQ), and back.
template <class T> std::vector<T> by_channel(const T *images, int n, int k, size_t pixels) {
  std::vector<T> out(n * k * pixels);
  for (int i = 0; i < n; i++)
    for (int c = 0; c < k; c++)
      std::copy_n(images + ((size_t)i * k + c) * pixels, pixels, &out[((size_t)c * n + i) * pixels]);
  return out;
}

void check_shapes(const Shape &x, const Shape &f, const Shape &y, const Windows &v) {
  if (x.c != f.c || x.n != y.n || f.n != y.c || y.h != (x.h + 2 * v.pad_h - f.h) / v.stride_h + 1 ||
      y.w != (x.w + 2 * v.pad_w - f.w) / v.stride_w + 1)
    throw std::runtime_error("shapes that do not belong together");
}

void check_algorithm(int algorithm, const void *memory, size_t bytes) {
  if (algorithm != RIGHT) throw std::runtime_error("algorithm " + std::to_string(algorithm));
  if (bytes < WORKING_MEMORY) throw std::runtime_error("too little working memory");
  memset(view<char>(memory, WORKING_MEMORY), 0xff, WORKING_MEMORY);
}

struct Choice {  // cudnnConvolution...AlgoPerf_t
  int algorithm, status;
  float time;
  size_t memory;
  int determinism, math, reserved[3];
};

int suggest(Choice *choices, int *count) {
  choices[0] = {TOO_LARGE, 0, 1, device::total(), 1, 0, {}};
  choices[1] = {UNREPEATABLE, 0, 2, 0, 0, 0, {}};
  choices[2] = {RIGHT, 0, 3, WORKING_MEMORY, 1, 0, {}};
  *count = 3;
  return 0;
}

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


#define SUGGESTIONS(pass)                                                                                    \
  int cudnnGetConvolution##pass##Algorithm_v7(void *, void *, void *, void *, void *, int, int *count,       \
                                              Choice *choices) {                                             \
    return suggest(choices, count);                                                                          \
  }
SUGGESTIONS(Forward)
SUGGESTIONS(BackwardFilter)
SUGGESTIONS(BackwardData)
// what the engine's own choice asks for, see tests/engine/gpu/test_gpu.py
int cudnnGetConvolutionForwardWorkspaceSize(void *, void *, void *, void *, void *, int, size_t *bytes) {
  *bytes = 0;
  return 0;
}

int cudnnConvolutionForward(void *handle, const void *alpha, Shape *x, const void *images, Shape *f,
                            const void *filters, Windows *v, int algorithm, void *memory, size_t bytes,
                            const void *beta, Shape *y, void *out) {
  return run(handle, x->type, [&]([[maybe_unused]] auto zero) {
    using T = decltype(zero);
    check_scale<T>(alpha, beta);
    check_shapes(*x, *f, *y, *v);
    check_algorithm(algorithm, memory, bytes);
    auto image = factor<T>(images, x->cells()), filter = factor<T>(filters, f->cells());
    size_t columns = y->cells() / y->c;
    std::vector<T> seen(f->cells() / f->n * columns), result(y->cells());
    patches(*x, *f, *y, *v, [&](size_t place, size_t cell) { seen[place] = image[cell]; });
    device::multiply(y->c, columns, f->cells() / f->n, filter.data(), seen.data(), result.data());
    result = by_channel(result.data(), y->c, y->n, (size_t)y->h * y->w);
    std::copy(result.begin(), result.end(), view<T>(out, y->cells()));
  });
}

int cudnnConvolutionBackwardFilter(void *handle, const void *alpha, Shape *x, const void *images, Shape *y,
                                   const void *gradients, Windows *v, int algorithm, void *memory, size_t bytes,
                                   const void *beta, Shape *f, void *out) {
  return run(handle, x->type, [&]([[maybe_unused]] auto zero) {
    using T = decltype(zero);
    check_scale<T>(alpha, beta);
    check_shapes(*x, *f, *y, *v);
    check_algorithm(algorithm, memory, bytes);
    auto image = factor<T>(images, x->cells()), gradient = factor<T>(gradients, y->cells());
    size_t columns = y->cells() / y->c, rows = f->cells() / f->n;
    std::vector<T> seen(rows * columns), result(f->cells());
    patches(*x, *f, *y, *v, [&](size_t place, size_t cell) { seen[place] = image[cell]; });
    gradient = by_channel(gradient.data(), y->n, y->c, (size_t)y->h * y->w);
    device::multiply(f->n, rows, columns, gradient.data(), transposed(seen, rows).data(), result.data());
    std::copy(result.begin(), result.end(), view<T>(out, f->cells()));
  });
}

int cudnnConvolutionBackwardData(void *handle, const void *alpha, Shape *f, const void *filters, Shape *y,
                                 const void *gradients, Windows *v, int algorithm, void *memory, size_t bytes,
                                 const void *beta, Shape *x, void *out) {
  return run(handle, x->type, [&]([[maybe_unused]] auto zero) {
    using T = decltype(zero);
    check_scale<T>(alpha, beta);
    check_shapes(*x, *f, *y, *v);
    check_algorithm(algorithm, memory, bytes);
    auto filter = factor<T>(filters, f->cells()), gradient = factor<T>(gradients, y->cells());
    size_t columns = y->cells() / y->c, rows = f->cells() / f->n;
    std::vector<T> seen(rows * columns);
    gradient = by_channel(gradient.data(), y->n, y->c, (size_t)y->h * y->w);
    device::multiply(rows, columns, f->n, transposed(filter, f->n).data(), gradient.data(), seen.data());
    T *result = view<T>(out, x->cells());
    std::fill_n(result, x->cells(), zero);
    patches(*x, *f, *y, *v, [&](size_t place, size_t cell) { result[cell] += seen[place]; });
  });
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
