// Matrix products for the layers of small networks.
#pragma once

#include <cstddef>

namespace ssbhash {

// Element (i, j) of a matrix lies at i * row + j * column.
struct Strided {
    const float *data;
    std::size_t row, column;
};

// A product may read so many rows of its left side beyond the last, whose values do not matter.
constexpr std::size_t kRowsBeyond = 12;

// out [m, n] = left [m, k] right [k, n]
void product(const Strided &left, const Strided &right, std::size_t m, std::size_t k, std::size_t n,
             float *out, std::size_t n_threads);

} // namespace ssbhash
