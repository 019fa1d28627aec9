// Memory of pretended GPUs: what CUDA's run time, driver and libraries (the .cpp files beside this one) share.
//
// A GPU's memory is the host's, filled with NaN when it is handed out, as nothing else is promised of it. What is
// not in the memory of the current GPU, or beyond what was asked for, is refused as a GPU refuses it.
//
// With SOFTWARE_GPU_IDLE they compute only what is small, so that what takes time is the host's part alone; memory is
// zeros then, and most results are without meaning (benchmarks/gpu_host.py).
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>

namespace device {

constexpr int OUT_OF_MEMORY = 2, ILLEGAL_ADDRESS = 700;  // as cudaError and CUresult

int count();                      // GPUs: SOFTWARE_GPU_COUNT, 1 by default
size_t total();                   // bytes of each: SOFTWARE_GPU_MEMORY, 4 GiB by default
size_t used(int gpu);             // bytes handed out
int &current();                   // the calling thread's GPU
void *allocate(size_t bytes);     // on the current GPU; null where it has not as much left
bool release(void *address);      // false where it was not handed out
void check(const void *address, size_t bytes);  // throws unless that lies in one matrix of the current GPU
bool skipped(double cells);       // whether they leave out to compute something of this size
void *new_handle();               // of a library, for the current GPU
void delete_handle(void *handle);
void check_handle(void *handle);  // throws unless it is of the current GPU

template <class T> T *view(const void *address, size_t cells) {
  check(address, cells * sizeof(T));
  return (T *)address;
}

// What a function gives back: 0, or the code for what it threw, which is told on standard error.
template <class Function> int guarded(int failed, Function function) {
  try {
    function();
    return 0;
  } catch (const std::exception &error) {
    fprintf(stderr, "software GPU: %s\n", error.what());
    return failed;
  }
}

// C (m, n) += A (m, k) B (k, n), all row by row.
template <class T> void multiply(size_t m, size_t n, size_t k, const T *A, const T *B, T *C) {
  constexpr size_t WIDTH = 1024;  // of B's columns at a time, which stay in the cache
  for (size_t first = 0; first < n; first += WIDTH)
    for (size_t i = 0; i < m; i++)
      for (size_t l = 0; l < k; l++) {
        const T value = A[i * k + l], *row = B + l * n;
        for (size_t j = first; j < (n < first + WIDTH ? n : first + WIDTH); j++) C[i * n + j] += value * row[j];
      }
}

// A factor as the GPU multiplies it: in TF32, FP32 keeps 10 of its 23 bits.
inline double rounded(double value) { return value; }
float rounded(float value);

}  // namespace device
