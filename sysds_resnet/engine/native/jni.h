// What of Java's native interface is used here. Runtimes of Java come without jni.h, so these are the entries of its
// function table: https://docs.oracle.com/en/java/javase/17/docs/specs/jni/functions.html
#pragma once

#include <cstdint>

#include "errors.h"

struct JniEnv {
    void *const *table;
};
using Object = void *;
using Array = Object;
using Class = Object;

namespace helper {

// An array of the JVM while it is pinned. Where the JVM has no memory for a copy it gives none, which is an error:
// what is computed follows from which arrays there are.
template <typename Value>
class Pinned {
  public:
    Pinned(JniEnv *env, Array array, bool written = false) : env_(env), array_(array), written_(written) {
        if (!array) throw Failure(kWrongSizes, "found no array where one is expected");
        auto get = reinterpret_cast<void *(*)(JniEnv *, Array, void *)>(env->table[222]);
        data = static_cast<Value *>(get(env, array, nullptr));
        if (!data) throw Failure(kNotPinned, "the JVM gave no access to an array; it may be out of memory");
    }
    ~Pinned() {
        auto release = reinterpret_cast<void (*)(JniEnv *, Array, void *, int32_t)>(env_->table[223]);
        release(env_, array_, data, written_ ? 0 : 2);  // 2: nothing to copy back
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

// The array that a FloatBuffer wraps, or null for null; to be asked for before any array is pinned.
inline Array wrapped(JniEnv *env, Object buffer) {
    if (!buffer) return nullptr;
    auto class_of = reinterpret_cast<Class (*)(JniEnv *, Object)>(env->table[31]);
    auto method = reinterpret_cast<void *(*)(JniEnv *, Class, const char *, const char *)>(env->table[33]);
    auto call = reinterpret_cast<Object (*)(JniEnv *, Object, void *, const void *)>(env->table[36]);
    Array array = call(env, buffer, method(env, class_of(env, buffer), "array", "()[F"), nullptr);
    if (!array) throw Failure(kWrongSizes, "found a buffer that wraps no array");
    return array;
}

}  // namespace helper
