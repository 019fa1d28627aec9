// Convolutions of cuDNN on pretended GPUs: images and filters channel by channel, nothing in half precision.
#include "cudnn.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

using device::view;
using namespace cudnn;

namespace {

// What is suggested for a convolution, the fastest first. Only the last can be had: it repeats itself, in memory that
// is there, on which it insists.
constexpr int TOO_LARGE = 3, UNREPEATABLE = 0, RIGHT = 1;  // algorithms
constexpr size_t WORKING_MEMORY = 1 << 10;

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

}  // namespace

extern "C" {

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
}
