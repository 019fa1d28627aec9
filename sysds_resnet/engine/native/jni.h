// The functions of Java's native interface that are used here, by their names in its specification. Java runtimes come
// without jni.h, which declares them; a runtime has them in a table, whose indices the specification gives:
// https://docs.oracle.com/en/java/javase/17/docs/specs/jni/functions.html
#pragma once

#include <cstdint>

#include "errors.h"

using Object = void *;
using Array = Object;
using Class = Object;
using Method = void *;

class JniEnv {
  public:
    Class GetObjectClass(Object object) { return call<31, Class>(object); }
    Method GetMethodID(Class owner, const char *name, const char *signature) {
        return call<33, Method>(owner, name, signature);
    }
    // The arguments are an array of values; null for a method without any.
    Object CallObjectMethodA(Object object, Method method, const void *arguments) {
        return call<36, Object>(object, method, arguments);
    }
    int32_t GetArrayLength(Array array) { return call<171, int32_t>(array); }
    // Null where the JVM cannot give access; `is_copy` may be null.
    void *GetPrimitiveArrayCritical(Array array, uint8_t *is_copy) { return call<222, void *>(array, is_copy); }
    void ReleasePrimitiveArrayCritical(Array array, void *values, int32_t mode) {
        call<223, void>(array, values, mode);
    }

  private:
    void *const *table_;  // all that an environment holds, as the runtime lays it out

    template <int index, typename Result, typename... Arguments>
    Result call(Arguments... arguments) {
        return reinterpret_cast<Result (*)(JniEnv *, Arguments...)>(table_[index])(this, arguments...);
    }
};

namespace helper {

constexpr int32_t kAbort = 2;  // JNI_ABORT: what was pinned is let go without being copied back

// An array of the JVM, pinned while this object lives. It is an error if there is no array, or if the JVM gives no
// access to it, as without memory for a copy: what is computed follows from which arrays there are.
template <typename Value>
class Pinned {
  public:
    Pinned(JniEnv *env, Array array, bool written = false) : env_(env), array_(array), written_(written) {
        if (!array) throw Failure(kWrongSizes, "found no array where one is expected");
        data = static_cast<Value *>(env->GetPrimitiveArrayCritical(array, nullptr));
        if (!data) throw Failure(kNotPinned, "the JVM gave no access to an array; it may be out of memory");
    }
    ~Pinned() {
        env_->ReleasePrimitiveArrayCritical(array_, data, written_ ? 0 : kAbort);
    }
    Pinned(const Pinned &) = delete;
    Pinned &operator=(const Pinned &) = delete;

    Value *data;

  private:
    JniEnv *env_;
    Array array_;
    bool written_;
};
using Doubles = Pinned<double>;
using Floats = Pinned<float>;

// Gives the array that a FloatBuffer wraps, or null for null. To be called before any array is pinned.
inline Array wrapped(JniEnv *env, Object buffer) {
    if (!buffer) return nullptr;
    Method method = env->GetMethodID(env->GetObjectClass(buffer), "array", "()[F");
    Array array = env->CallObjectMethodA(buffer, method, nullptr);
    if (!array) throw Failure(kWrongSizes, "found a buffer that wraps no array");
    return array;
}

}  // namespace helper
