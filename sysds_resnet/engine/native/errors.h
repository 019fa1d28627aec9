// Failures, as codes that the Java side knows, and OpenMP's number of threads.
#pragma once

#include <omp.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <new>
#include <stdexcept>

#include "oneapi/dnnl/dnnl.hpp"

namespace helper {

// The codes that a function returns on failure. engine/operators/Native.java turns them into messages.
enum Code : int64_t {
    kFailed = -1,      // an error of oneDNN, or any other
    kNoMemory = -2,
    kWrongSizes = -3,
    kNotPinned = -4,
};

struct Failure : std::runtime_error {
    Failure(Code code, const char *what) : std::runtime_error(what), code(code) {}
    Code code;
};

// Keeps the first exception of several threads, since one that leaves a parallel region ends the process.
class FirstError {
  public:
    // Does a part of a region's work, unless another part has failed.
    template <typename Work>
    void guard(Work work) noexcept {
        if (failed_) return;
        try {
            work();
        } catch (...) {
            if (!failed_.exchange(true)) error_ = std::current_exception();
        }
    }
    // Throws the exception that was kept, if any. To be called after the region.
    void rethrow() const {
        if (error_) std::rethrow_exception(error_);
    }

  private:
    std::atomic<bool> failed_{false};
    std::exception_ptr error_;
};

// Makes the OpenMP regions that this thread of the JVM starts use so many threads, whatever the environment says
// (OMP_DYNAMIC, OMP_MAX_ACTIVE_LEVELS), since oneDNN generates code for a number of threads, and relies on it.
inline void set_threads(int32_t threads) {
    constexpr int32_t kMost = 1024;
    omp_set_dynamic(0);
    omp_set_max_active_levels(1);
    omp_set_num_threads(std::min({std::max(threads, 1), omp_get_thread_limit(), kMost}));
}

// Sets another number of threads while this object lives.
class ThreadsForNow {
  public:
    explicit ThreadsForNow(int threads) : before_(omp_get_max_threads()) { omp_set_num_threads(threads); }
    ~ThreadsForNow() { omp_set_num_threads(before_); }
    ThreadsForNow(const ThreadsForNow &) = delete;
    ThreadsForNow &operator=(const ThreadsForNow &) = delete;

  private:
    int before_;
};

// Runs the work of a function that the JVM calls, with so many threads. It gives the result, or on failure a code, and
// writes the reason to the JVM's standard error.
template <typename Work>
int64_t guarded(int32_t threads, Work work) noexcept {
    Code code = kFailed;
    const char *reason = "an unknown error";
    try {
        set_threads(threads);
        return work();
    } catch (const Failure &error) {
        code = error.code;
        std::fprintf(stderr, "sysds_resnet native helper: %s\n", error.what());
        return code;
    } catch (const dnnl::error &error) {
        code = error.status == dnnl_out_of_memory ? kNoMemory : kFailed;
        std::fprintf(stderr, "sysds_resnet native helper: oneDNN: %s\n", error.what());
        return code;
    } catch (const std::bad_alloc &) {
        code = kNoMemory;
        reason = "found no memory for what is computed";
    } catch (const std::exception &error) {
        std::fprintf(stderr, "sysds_resnet native helper: %s\n", error.what());
        return code;
    } catch (...) {
    }
    std::fprintf(stderr, "sysds_resnet native helper: %s\n", reason);
    return code;
}

}  // namespace helper
