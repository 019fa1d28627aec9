// Names and helpers for oneDNN that all files here share.
#pragma once

#include <cstdlib>
#include <cstring>
#include <unordered_map>

#include "oneapi/dnnl/dnnl.hpp"
#include "values.h"

namespace helper {

using Dims = dnnl::memory::dims;
using Tag = dnnl::memory::format_tag;

// The type of the values that are multiplied; sums of products are always FP32.
inline const Type kPrecision = [] {
    const char *name = std::getenv("SYSDS_RESNET_PRECISION");
    return name && !std::strcmp(name, "bf16") ? Type::bf16 : Type::f32;
}();

inline const dnnl::engine &cpu() {
    static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
    return engine;
}

// Gives the attributes of primitives that several threads run at a time: the caller gives each its working memory.
inline dnnl::primitive_attr shared_attributes() {
    dnnl::primitive_attr attributes;
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    attributes.set_fpmath_mode(dnnl::fpmath_mode::strict);  // whatever ONEDNN_DEFAULT_FPMATH_MODE says
    return attributes;
}

// Gives the attributes of primitives that have working memory of their own.
inline dnnl::primitive_attr attributes() {
    dnnl::primitive_attr attributes;
    attributes.set_fpmath_mode(dnnl::fpmath_mode::strict);
    return attributes;
}

inline void reorder(const dnnl::memory::desc &from_order, void *from, const dnnl::memory::desc &to_order, void *to) {
    dnnl::memory source(from_order, cpu(), from), target(to_order, cpu(), to);
    dnnl::stream stream(cpu());
    dnnl::reorder(source, target).execute(stream, source, target);
    stream.wait();
}

}  // namespace helper
