// What of CUDA's driver SystemDS calls, and its own kernels, on pretended GPUs.
//
// The kernels are those of SystemDS.ptx by name, written anew after what they do:
// https://github.com/apache/systemds/blob/3.4.0-rc2/src/main/cuda/kernels/SystemDS.cu
#include "device.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <map>
#include <string>
#include <vector>

using device::view;

namespace {

struct Launch {
  unsigned blocks;
  void **arguments;

  template <class T> T value(int i) const { return *(T *)arguments[i]; }
  template <class T> T *array(int i, size_t cells) const { return view<T>(value<void *>(i), cells); }
};

double binary(int op, double x, double y) {
  switch (op) {
    case 0: return x + y;
    case 1: return x - y;
    case 2: return x * y;
    case 3: return x / y;
    case 4: return pow(x, y);
    case 5: return x < y;
    case 6: return x <= y;
    case 7: return x > y;
    case 8: return x >= y;
    case 9: return x == y;
    case 10: return x != y;
    case 11: return fmin(x, y);
    case 12: return fmax(x, y);
    case 13: return x != 0 && y != 0;
    case 14: return x != 0 || y != 0;
    case 15: return 1 - x * y;
    case 16: return x != 0 ? x - y : 0;
    case 17: return x - floor(x / y) * y;
    case 18: return floor(x / y);
  }
  throw std::runtime_error("no operator " + std::to_string(op));
}

using Kernel = std::function<void(const Launch &)>;
using Kernels = std::map<std::string, Kernel>;

template <class T> struct Reduction {
  double start;
  std::function<double(double, double)> step;
  bool mean = false;

  double of(const T *cells, size_t count, size_t stride) const {
    double result = start;
    for (size_t i = 0; i < count; i++) result = step(result, cells[i * stride]);
    return mean ? result / count : result;
  }
};

template <class T> void add_reductions(Kernels &kernels, const std::string &suffix) {
  auto add = [](double a, double b) { return a + b; };
  std::map<std::string, Reduction<T>> reductions = {
      {"sum", {0, add}},
      {"mean", {0, add, true}},
      {"max", {-INFINITY, [](double a, double b) { return fmax(a, b); }}},
      {"min", {INFINITY, [](double a, double b) { return fmin(a, b); }}},
  };
  for (auto &[name, reduction] : reductions) {
    Reduction<T> r = reduction;
    kernels["reduce_" + name + suffix] = [r, name = name](const Launch &l) {  // each block leaves a part
      size_t n = l.value<unsigned>(2);
      // of what is not computed a sum would seldom be a number
      bool none = device::skipped(INFINITY) && name == "sum";
      T result = none ? 0 : (T)r.of(l.array<T>(0, n), n, 1), *out = l.array<T>(1, l.blocks);
      for (unsigned i = 1; i < l.blocks; i++) out[i] = (T)r.start;
      out[0] = result;
    };
    kernels["reduce_row_" + name + suffix] = [r](const Launch &l) {
      size_t rows = l.value<unsigned>(2), cols = l.value<unsigned>(3);
      T *in = l.array<T>(0, rows * cols), *out = l.array<T>(1, rows);
      for (size_t i = 0; i < rows; i++) out[i] = (T)r.of(in + i * cols, cols, 1);
    };
    kernels["reduce_col_" + name + suffix] = [r](const Launch &l) {
      size_t rows = l.value<unsigned>(2), cols = l.value<unsigned>(3);
      T *in = l.array<T>(0, rows * cols), *out = l.array<T>(1, cols);
      for (size_t i = 0; i < cols; i++) out[i] = (T)r.of(in + i, rows, cols);
    };
  }
}

template <class T> void add_kernels(Kernels &kernels, const std::string &suffix) {
  add_reductions<T>(kernels, suffix);
  std::map<std::string, double (*)(double)> unary = {{"exp", exp}, {"sqrt", sqrt}, {"log", log}, {"abs", fabs},
                                                     {"round", round}, {"floor", floor}, {"ceil", ceil}};
  for (auto &[name, function] : unary) {
    auto f = function;
    kernels["matrix_" + name + suffix] = [f](const Launch &l) {
      size_t n = l.value<unsigned>(2);
      T *in = l.array<T>(0, n), *out = l.array<T>(1, n);
      for (size_t i = 0; i < n; i++) out[i] = (T)f(in[i]);
    };
  }
  kernels["fill" + suffix] = [](const Launch &l) {
    size_t n = l.value<int>(2);
    std::fill_n(l.array<T>(0, n), n, (T)l.value<double>(1));
  };
  kernels["matrix_scalar_op" + suffix] = [](const Launch &l) {
    size_t n = l.value<int>(3);
    T *in = l.array<T>(0, n), *out = l.array<T>(2, n), scalar = (T)l.value<double>(1);
    int op = l.value<int>(4), left = l.value<int>(5);
    for (size_t i = 0; i < n; i++) out[i] = (T)(left ? binary(op, scalar, in[i]) : binary(op, in[i], scalar));
  };
  kernels["matrix_matrix_cellwise_op" + suffix] = [](const Launch &l) {
    size_t rows = l.value<int>(3), cols = l.value<int>(4);
    int a_kind = l.value<int>(5), b_kind = l.value<int>(6), op = l.value<int>(7);
    auto size = [&](int kind) { return kind == 1 ? rows : kind == 2 ? cols : rows * cols; };
    auto place = [&](int kind, size_t i, size_t j) { return kind == 1 ? i : kind == 2 ? j : i * cols + j; };
    T *a = l.array<T>(0, size(a_kind)), *b = l.array<T>(1, size(b_kind)), *out = l.array<T>(2, rows * cols);
    for (size_t i = 0; i < rows; i++)
      for (size_t j = 0; j < cols; j++)
        out[i * cols + j] = (T)binary(op, a[place(a_kind, i, j)], b[place(b_kind, i, j)]);
  };
  for (int op : {0, 2})  // one value for each channel
    kernels[(op ? "bias_multiply" : "bias_add") + suffix] = [op](const Launch &l) {
      size_t rows = l.value<int>(3), cols = l.value<int>(4), pixels = l.value<int>(5);
      T *in = l.array<T>(0, rows * cols), *bias = l.array<T>(1, cols / pixels), *out = l.array<T>(2, rows * cols);
      for (size_t i = 0; i < rows * cols; i++) out[i] = (T)binary(op, in[i], bias[i % cols / pixels]);
    };
  kernels["relu" + suffix] = [](const Launch &l) {
    size_t n = (size_t)l.value<int>(2) * l.value<int>(3);
    T *in = l.array<T>(0, n), *out = l.array<T>(1, n);
    for (size_t i = 0; i < n; i++) out[i] = (T)binary(12, 0, in[i]);
  };
  kernels["relu_backward" + suffix] = [](const Launch &l) {
    size_t n = (size_t)l.value<int>(3) * l.value<int>(4);
    T *in = l.array<T>(0, n), *gradient = l.array<T>(1, n), *out = l.array<T>(2, n);
    for (size_t i = 0; i < n; i++) out[i] = in[i] > 0 ? gradient[i] : 0;
  };
  kernels["inplace_add" + suffix] = [](const Launch &l) {
    size_t n = (size_t)l.value<int>(2) * l.value<int>(3);
    T *in = l.array<T>(0, n), *out = l.array<T>(1, n);
    for (size_t i = 0; i < n; i++) out[i] += in[i];
  };
  kernels["daxpy_matrix_vector" + suffix] = [](const Launch &l) {
    size_t rows = l.value<int>(4), cols = l.value<int>(5), b_rows = l.value<int>(6), b_cols = l.value<int>(7);
    T *a = l.array<T>(0, rows * cols), *b = l.array<T>(1, b_rows * b_cols), *out = l.array<T>(3, rows * cols);
    double alpha = l.value<double>(2);
    for (size_t i = 0; i < rows * cols; i++)
      out[i] = (T)(a[i] + alpha * b[b_rows == 1 ? i % cols : i / cols]);
  };
  kernels["slice_dense_dense" + suffix] = [](const Launch &l) {
    size_t first_row = l.value<int>(2), first_col = l.value<int>(4), in_cols = l.value<int>(6);
    size_t rows = l.value<int>(7), cols = l.value<int>(8);
    T *in = l.array<T>(0, (first_row + rows) * in_cols), *out = l.array<T>(1, rows * cols);
    for (size_t i = 0; i < rows; i++)
      memcpy(out + i * cols, in + (first_row + i) * in_cols + first_col, cols * sizeof(T));
  };
  kernels["cbind" + suffix] = [](const Launch &l) {
    size_t rows = l.value<int>(3), a_cols = l.value<int>(4), b_cols = l.value<int>(6), cols = a_cols + b_cols;
    T *a = l.array<T>(0, rows * a_cols), *b = l.array<T>(1, rows * b_cols), *out = l.array<T>(2, rows * cols);
    for (size_t i = 0; i < rows; i++) {
      memcpy(out + i * cols, a + i * a_cols, a_cols * sizeof(T));
      memcpy(out + i * cols + a_cols, b + i * b_cols, b_cols * sizeof(T));
    }
  };
  kernels["rbind" + suffix] = [](const Launch &l) {
    size_t a = (size_t)l.value<int>(3) * l.value<int>(4), b = (size_t)l.value<int>(5) * l.value<int>(6);
    T *out = l.array<T>(2, a + b);
    memcpy(out, l.array<T>(0, a), a * sizeof(T));
    memcpy(out + a, l.array<T>(1, b), b * sizeof(T));
  };
  kernels["copy_u2l_dense" + suffix] = [](const Launch &l) {  // of a symmetric matrix, of which there is a half
    size_t dim = l.value<int>(1);
    T *cells = l.array<T>(0, dim * dim);
    for (size_t i = 0; i < dim; i++)
      for (size_t j = i + 1; j < dim; j++) cells[j * dim + i] = cells[i * dim + j];
  };
}

template <class From, class To> void convert(const Launch &l) {
  size_t n = l.value<int>(2);
  From *in = l.array<From>(0, n);
  To *out = l.array<To>(1, n);
  for (size_t i = 0; i < n; i++) out[i] = (To)in[i];
}

const Kernels &kernels() {
  static const Kernels all = [] {
    Kernels kernels;
    add_kernels<double>(kernels, "_d");
    add_kernels<float>(kernels, "_f");
    kernels["double2float_f"] = convert<double, float>;
    kernels["float2double_f"] = convert<float, double>;
    return kernels;
  }();
  return all;
}

}  // namespace

extern "C" {

int cuInit(unsigned) { return 0; }
int cuDeviceGetCount(int *count) {
  *count = device::count();
  return 0;
}
int cuDeviceGet(int *gpu, int number) {
  *gpu = number;
  return 0;
}
int cuDeviceGetAttribute(int *value, int, int) {  // the greatest block and grid are what SystemDS asks for
  *value = 1024;
  return 0;
}
int cuModuleLoadDataEx(void **module, const void *, unsigned, int *, void **) {
  *module = (void *)&kernels();
  return 0;
}
int cuModuleGetFunction(void **function, void *, const char *name) {
  auto found = kernels().find(name);
  if (found == kernels().end()) {
    fprintf(stderr, "software GPU: no kernel %s\n", name);
    return 500;  // CUDA_ERROR_NOT_FOUND
  }
  *function = (void *)&*found;
  return 0;
}
int cuLaunchKernel(void *function, unsigned blocks, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void *,
                   void **arguments, void **) {
  auto &[name, kernel] = *(const Kernels::value_type *)function;
  if (device::skipped(blocks * 1024.0)) return 0;  // a block is of 1024 threads at most, of a cell each
  return device::guarded(device::ILLEGAL_ADDRESS, [&] { kernel({blocks, arguments}); });
}
}
