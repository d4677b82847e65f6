// Copies of small matrices and of their rows.
#pragma once

#include <cstddef>
#include <cstring>

namespace ssbhash {

// Copies a few numbers. For so few, a call of memmove would take longer.
inline void copy_short(const float *from, std::size_t n, float *to) {
    constexpr std::size_t n_at_once = 8;
    std::size_t i = 0;
    for (; i + n_at_once <= n; i += n_at_once)
        std::memcpy(to + i, from + i, n_at_once * sizeof(float)); // of known size: no call
    for (; i < n; ++i)
        to[i] = from[i];
}

// Columns 0 ... n of to [k, to_row] = the transpose of from [n, k]; from_row is its row stride.
void transpose(const float *from, std::size_t from_row, std::size_t n, std::size_t k, float *to,
               std::size_t to_row);

} // namespace ssbhash
