// The table of functions that each instruction set fills in once.
//
// Files under isa/ include this header and their kernels alone: a std::
// template instantiated there could be the copy that the linker keeps for
// every machine, an illegal instruction on older ones.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ssbhash {

struct Kernels {
    const char *name;

    // Distances of `n` consecutive codes to one query.
    void (*row_distances)(const std::uint8_t *codes, std::size_t n, std::size_t n_bytes,
                          const std::uint8_t *query, std::int32_t *out);
};

} // namespace ssbhash
