// Copies of small matrices and of their rows.
#pragma once

#include <cstddef>
#include <cstring>

namespace ssbhash {

// A call of memmove would take longer than the copy.
inline void copy_short(const float *from, std::size_t n, float *to) {
    constexpr std::size_t n_at_once = 8;
    std::size_t i = 0;
    for (; i + n_at_once <= n; i += n_at_once)
        std::memcpy(to + i, from + i, n_at_once * sizeof(float)); // of known size: no call
    for (; i < n; ++i)
        to[i] = from[i];
}

// to [k, to_row], columns 0 ... n, = the transpose of from [n, k], whose rows lie `from_row` apart.
void transpose(const float *from, std::size_t from_row, std::size_t n, std::size_t k, float *to,
               std::size_t to_row);

} // namespace ssbhash
