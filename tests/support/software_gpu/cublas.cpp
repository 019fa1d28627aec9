// What of cuBLAS and cuSPARSE SystemDS calls, on pretended GPUs.
//
// cuBLAS: matrices are column-major. A handle is of the GPU that it was made on.
#include "device.h"

#include <cmath>
#include <cstring>
#include <vector>

using device::view;

namespace {

constexpr int FAILED = 13;  // CUBLAS_STATUS_EXECUTION_FAILED

template <class T> std::vector<T> factor(const T *cells, int transposed, int rows, int cols, int ld) {
  std::vector<T> out((size_t)rows * cols);  // row-major, rounded as the GPU rounds
  for (int i = 0; i < rows; i++)
    for (int j = 0; j < cols; j++)
      out[(size_t)i * cols + j] =
          device::rounded(transposed ? cells[(size_t)i * ld + j] : cells[(size_t)j * ld + i]);
  return out;
}

template <class T>
int gemm(void *handle, int ta, int tb, int m, int n, int k, const T *alpha, const void *a, int lda, const void *b,
         int ldb, const T *beta, void *c, int ldc) {
  if (device::skipped((double)m * n * k)) return 0;
  return device::guarded(FAILED, [&] {
    device::check_handle(handle);
    auto A = factor(view<T>(a, (size_t)lda * ((ta ? m : k) - 1) + (ta ? k : m)), ta, m, k, lda);
    auto B = factor(view<T>(b, (size_t)ldb * ((tb ? k : n) - 1) + (tb ? n : k)), tb, k, n, ldb);
    T *C = view<T>(c, (size_t)ldc * (n - 1) + m);
    std::vector<T> product((size_t)m * n);
    device::multiply<T>(m, n, k, A.data(), B.data(), product.data());
    for (int i = 0; i < m; i++)
      for (int j = 0; j < n; j++) {
        T &cell = C[(size_t)j * ldc + i];
        cell = *alpha * product[(size_t)i * n + j] + (*beta != 0 ? *beta * cell : 0);
      }
  });
}

template <class T>
int gemv(void *handle, int ta, int m, int n, const T *alpha, const void *a, int lda, const void *x, int,
         const T *beta, void *y, int) {
  int rows = ta ? n : m, cols = ta ? m : n;
  return gemm(handle, ta, 0, rows, 1, cols, alpha, a, lda, x, cols, beta, y, rows);
}

template <class T>
int geam(void *handle, int ta, int tb, int m, int n, const T *alpha, const void *a, int lda, const T *beta,
         const void *b, int ldb, void *c, int ldc) {
  if (device::skipped((double)m * n)) return 0;
  return device::guarded(FAILED, [&] {
    device::check_handle(handle);
    auto cell = [](const T *cells, int transposed, int ld, int i, int j) {
      return transposed ? cells[(size_t)i * ld + j] : cells[(size_t)j * ld + i];
    };
    const T *A = *alpha != 0 ? view<T>(a, 1) : nullptr, *B = *beta != 0 ? view<T>(b, 1) : nullptr;
    T *C = view<T>(c, (size_t)ldc * (n - 1) + m);
    for (int j = 0; j < n; j++)
      for (int i = 0; i < m; i++)
        C[(size_t)j * ldc + i] = (A ? *alpha * cell(A, ta, lda, i, j) : 0) + (B ? *beta * cell(B, tb, ldb, i, j) : 0);
  });
}

template <class T> int dot(void *handle, int n, const void *x, int, const void *y, int, T *result) {
  return device::guarded(FAILED, [&] {
    device::check_handle(handle);
    const T *X = view<T>(x, n), *Y = view<T>(y, n);
    T sum = 0;
    for (int i = 0; i < n; i++) sum += X[i] * Y[i];
    *result = sum;
  });
}

int device_pointers = 0;  // whether results go to the GPU's memory; of all handles, as SystemDS has one for each GPU

template <class T> int nrm2(void *handle, int n, const void *x, int, T *result) {
  return device::guarded(FAILED, [&] {
    device::check_handle(handle);
    const T *X = view<T>(x, n);
    double sum = 0;
    for (int i = 0; i < n && !device::skipped(INFINITY); i++) sum += (double)X[i] * X[i];
    *(device_pointers ? view<T>(result, 1) : result) = (T)sqrt(sum);
  });
}

template <class T> int axpy(void *handle, int n, const T *alpha, const void *x, int, void *y, int) {
  if (device::skipped(n)) return 0;
  return device::guarded(FAILED, [&] {
    device::check_handle(handle);
    const T *X = view<T>(x, n);
    T *Y = view<T>(y, n);
    for (int i = 0; i < n; i++) Y[i] += *alpha * X[i];
  });
}

}  // namespace

extern "C" {

int cublasCreate_v2(void **handle) {
  *handle = device::new_handle();
  return 0;
}
int cublasDestroy_v2(void *handle) {
  device::delete_handle(handle);
  return 0;
}
int cublasSetPointerMode_v2(void *, int mode) {
  device_pointers = mode;
  return 0;
}

#define BOTH(name, function, parameters, arguments)                                                          \
  int cublasD##name parameters(double) { return function<double> arguments; }                                \
  int cublasS##name parameters(float) { return function<float> arguments; }
#define GEMM(T) (void *h, int ta, int tb, int m, int n, int k, const T *alpha, const void *a, int lda,      \
                 const void *b, int ldb, const T *beta, void *c, int ldc)
BOTH(gemm_v2, gemm, GEMM, (h, ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc))
#define GEMV(T) (void *h, int ta, int m, int n, const T *alpha, const void *a, int lda, const void *x, int sx, \
                 const T *beta, void *y, int sy)
BOTH(gemv_v2, gemv, GEMV, (h, ta, m, n, alpha, a, lda, x, sx, beta, y, sy))
#define GEAM(T) (void *h, int ta, int tb, int m, int n, const T *alpha, const void *a, int lda, const T *beta, \
                 const void *b, int ldb, void *c, int ldc)
BOTH(geam, geam, GEAM, (h, ta, tb, m, n, alpha, a, lda, beta, b, ldb, c, ldc))
#define DOT(T) (void *h, int n, const void *x, int sx, const void *y, int sy, T *result)
BOTH(dot_v2, dot, DOT, (h, n, x, sx, y, sy, result))
#define NRM2(T) (void *h, int n, const void *x, int sx, T *result)
BOTH(nrm2_v2, nrm2, NRM2, (h, n, x, sx, result))
#define AXPY(T) (void *h, int n, const T *alpha, const void *x, int sx, void *y, int sy)
BOTH(axpy_v2, axpy, AXPY, (h, n, alpha, x, sx, y, sy))
}

// cuSPARSE: what SystemDS asks of it before it makes a matrix without values into a dense one.
extern "C" {

int cusparseCreate(void **handle) { return cublasCreate_v2(handle); }
int cusparseCreateMatDescr(void **descriptor) {
  *descriptor = nullptr;
  return 0;
}
int cusparseSetMatType(void *, int) { return 0; }
int cusparseSetMatIndexBase(void *, int) { return 0; }
}
