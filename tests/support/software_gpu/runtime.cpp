// The memory of pretended GPUs, and what of CUDA's run time SystemDS calls through JCuda.
//
// JCuda's own library has NVIDIA's run time in it, which talks to NVIDIA's driver in ways that are not published, so
// this takes that library's place, with functions of the same names. They get Java objects; engine/native/jni.h comes with a JDK,
// which this project does without, so the functions of the Java Native Interface are called by their numbers:
// https://docs.oracle.com/en/java/javase/17/docs/specs/jni/functions.html#interface-function-table
#include "device.h"

#include <cmath>
#include <cstring>
#include <map>
#include <mutex>
#include <string>

namespace device {

struct Allocation {
  size_t bytes;
  int gpu;
};
static std::map<uintptr_t, Allocation> allocations;
static std::map<int, size_t> in_use;
static std::mutex mutex;

static size_t setting(const char *name, size_t otherwise) {
  const char *text = getenv(name);
  return text ? strtoull(text, nullptr, 10) : otherwise;
}

int count() { return (int)setting("SOFTWARE_GPU_COUNT", 1); }
size_t total() { return setting("SOFTWARE_GPU_MEMORY", 4ull << 30); }

bool skipped(double cells) {
  static const bool idle = setting("SOFTWARE_GPU_IDLE", 0);
  return idle && cells > 1e5;
}

size_t used(int gpu) {
  std::lock_guard<std::mutex> lock(mutex);
  return in_use[gpu];
}

int &current() {
  thread_local int gpu = 0;
  return gpu;
}

void *allocate(size_t bytes) {
  std::lock_guard<std::mutex> lock(mutex);
  if (in_use[current()] + bytes > total()) return nullptr;
  void *address = calloc(1, bytes ? bytes : 1);
  if (!skipped(INFINITY)) memset(address, 0xff, bytes);
  allocations[(uintptr_t)address] = {bytes, current()};
  in_use[current()] += bytes;
  return address;
}

bool release(void *address) {
  std::lock_guard<std::mutex> lock(mutex);
  auto found = allocations.find((uintptr_t)address);
  if (found == allocations.end()) return false;
  in_use[found->second.gpu] -= found->second.bytes;
  allocations.erase(found);
  free(address);
  return true;
}

static const Allocation &find(const void *address, size_t bytes) {
  auto after = allocations.upper_bound((uintptr_t)address);
  if (after != allocations.begin()) {
    auto &[start, allocation] = *std::prev(after);
    if ((uintptr_t)address + bytes <= start + allocation.bytes) return allocation;
  }
  throw std::runtime_error(std::to_string(bytes) + " bytes are not in what was handed out");
}

void check(const void *address, size_t bytes) {
  std::lock_guard<std::mutex> lock(mutex);
  int gpu = find(address, bytes).gpu;
  if (gpu != current())
    throw std::runtime_error("GPU " + std::to_string(current()) + " reads memory of GPU " + std::to_string(gpu));
}

static void check_any(const void *address, size_t bytes) {
  std::lock_guard<std::mutex> lock(mutex);
  find(address, bytes);
}

void *new_handle() { return new int(current()); }
void delete_handle(void *handle) { delete (int *)handle; }
void check_handle(void *handle) {
  if (*(int *)handle != current()) throw std::runtime_error("a handle of another GPU");
}

float rounded(float value) {
  static const char *text = getenv("NVIDIA_TF32_OVERRIDE");
  if (text && *text == '0') return value;
  uint32_t bits;
  memcpy(&bits, &value, 4);
  bits = (bits + 0x1000) & ~0x1fffu;
  memcpy(&value, &bits, 4);
  return value;
}

}  // namespace device

namespace {

using Env = void **const *;
using Object = void *;

template <class Result, class... Arguments> Result call(Env env, int number, Arguments... arguments) {
  return ((Result(*)(Env, Arguments...))(*env)[number])(env, arguments...);
}

Object class_of(Env env, Object object) { return call<Object>(env, 31, object); }
void *field(Env env, Object object, const char *name, const char *type) {
  return call<void *>(env, 94, class_of(env, object), name, type);
}
int64_t get_long(Env env, Object object, const char *name) {
  return call<int64_t>(env, 101, object, field(env, object, name, "J"));
}
void set_long(Env env, Object object, const char *name, int64_t value) {
  call<void>(env, 110, object, field(env, object, name, "J"), value);
}
void set_int(Env env, Object object, const char *name, int value) {
  call<void>(env, 109, object, field(env, object, name, "I"), value);
}
void set_cell(Env env, Object array, int value) { call<void>(env, 211, array, 0, 1, &value); }
void set_cell(Env env, Object array, int64_t value) { call<void>(env, 212, array, 0, 1, &value); }

// What a jcuda.Pointer points to: memory of a GPU, or a Java array or buffer, which stands still while this lives.
struct Place {
  Env env;
  Object array = nullptr;
  char *start = nullptr;

  Place(Env env, Object pointer) : env(env) {
    Object buffer = call<Object>(env, 95, pointer, field(env, pointer, "buffer", "Ljava/nio/Buffer;"));
    if (!buffer) {
      start = (char *)(get_long(env, pointer, "nativePointer") + get_long(env, pointer, "byteOffset"));
    } else if (!(start = call<char *>(env, 230, buffer))) {
      void *method = call<void *>(env, 33, class_of(env, buffer), "array", "()Ljava/lang/Object;");
      array = ((Object(*)(Env, Object, void *, ...))(*env)[34])(env, buffer, method);
      start = call<char *>(env, 222, array, (void *)nullptr);
    }
  }
  ~Place() {
    if (array) call<void>(env, 223, array, (void *)start, 0);
  }
};

}  // namespace

#define JCUDA(name) extern "C" int Java_jcuda_runtime_JCuda_cuda##name##Native

extern "C" void Java_jcuda_runtime_JCuda_setLogLevel(Env, Object, int) {}

JCUDA(GetDeviceCount)(Env env, Object, Object counts) {
  set_cell(env, counts, device::count());
  return 0;
}

JCUDA(SetDevice)(Env, Object, int gpu) {
  if (gpu < 0 || gpu >= device::count()) return 101;  // cudaErrorInvalidDevice
  device::current() = gpu;
  return 0;
}

JCUDA(SetDeviceFlags)(Env, Object, int) { return 0; }

JCUDA(GetDevice)(Env env, Object, Object gpus) {
  set_cell(env, gpus, device::current());
  return 0;
}

JCUDA(GetDeviceProperties)(Env env, Object, Object properties, int) {
  const char name[] = "software GPU";
  call<void>(env, 208, call<Object>(env, 95, properties, field(env, properties, "name", "[B")), 0,
             (int)sizeof name, name);
  int grid[] = {1 << 30, 65535, 65535};
  call<void>(env, 211, call<Object>(env, 95, properties, field(env, properties, "maxGridSize", "[I")), 0, 3, grid);
  set_long(env, properties, "totalGlobalMem", (int64_t)device::total());
  set_long(env, properties, "sharedMemPerBlock", 48 << 10);
  set_int(env, properties, "maxThreadsPerBlock", 1024);
  set_int(env, properties, "warpSize", 32);
  set_int(env, properties, "major", 9);
  return 0;
}

JCUDA(MemGetInfo)(Env env, Object, Object free, Object total) {
  set_cell(env, free, (int64_t)(device::total() - device::used(device::current())));
  set_cell(env, total, (int64_t)device::total());
  return 0;
}

JCUDA(Malloc)(Env env, Object, Object pointer, int64_t bytes) {
  void *address = device::allocate((size_t)bytes);
  if (!address) return device::OUT_OF_MEMORY;
  set_long(env, pointer, "nativePointer", (int64_t)address);
  return 0;
}

JCUDA(Free)(Env env, Object, Object pointer) {
  return device::release((void *)get_long(env, pointer, "nativePointer")) ? 0 : 1;  // cudaErrorInvalidValue
}

// Notes what is copied between the host and a GPU in the file SOFTWARE_GPU_LOG: "1 bytes" to a GPU, "2 bytes" from it.
static void note(int kind, int64_t bytes) {
  const char *path = getenv("SOFTWARE_GPU_LOG");
  if (!path || kind == 3) return;
  if (FILE *log = fopen(path, "a")) {
    fprintf(log, "%d %lld\n", kind, (long long)bytes);
    fclose(log);
  }
}

JCUDA(Memcpy)(Env env, Object, Object to, Object from, int64_t bytes, int kind) {
  note(kind, bytes);
  Place target(env, to), source(env, from);
  return device::guarded(device::ILLEGAL_ADDRESS, [&] {
    if (kind == 1 || kind == 3) device::check_any(target.start, (size_t)bytes);
    if (kind == 2 || kind == 3) device::check_any(source.start, (size_t)bytes);
    memmove(target.start, source.start, (size_t)bytes);
  });
}

JCUDA(MemcpyPeer)(Env env, Object, Object to, int, Object from, int, int64_t bytes) {
  return Java_jcuda_runtime_JCuda_cudaMemcpyNative(env, nullptr, to, from, bytes, 3);
}

JCUDA(Memset)(Env env, Object, Object pointer, int value, int64_t bytes) {
  if (device::skipped((double)bytes)) return 0;
  Place target(env, pointer);
  return device::guarded(device::ILLEGAL_ADDRESS, [&] {
    device::check(target.start, (size_t)bytes);
    memset(target.start, value, (size_t)bytes);
  });
}

JCUDA(DeviceSynchronize)(Env, Object) { return 0; }
