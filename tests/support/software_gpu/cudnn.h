// What the functions of cuDNN (cudnn.cpp, convolution.cpp) share on pretended GPUs: descriptors, and how they run.
#pragma once
#include "device.h"

#include <cmath>

namespace cudnn {

constexpr int FAILED = 5000;  // CUDNN_STATUS_EXECUTION_FAILED

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

}  // namespace cudnn
