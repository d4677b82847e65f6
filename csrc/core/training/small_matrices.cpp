#include "core/training/small_matrices.hpp"

namespace ssbhash {

namespace {

typedef float Four __attribute__((vector_size(16)));

// to [4, 4] = the transpose of from [4, 4]; from_row and to_row are their row strides.
void transpose_block(const float *from, std::size_t from_row, float *to, std::size_t to_row) {
    Four rows[4];
    for (std::size_t i = 0; i < 4; ++i)
        std::memcpy(&rows[i], from + i * from_row, sizeof(Four));
    const Four low[2] = {__builtin_shufflevector(rows[0], rows[1], 0, 4, 1, 5),
                         __builtin_shufflevector(rows[2], rows[3], 0, 4, 1, 5)};
    const Four high[2] = {__builtin_shufflevector(rows[0], rows[1], 2, 6, 3, 7),
                          __builtin_shufflevector(rows[2], rows[3], 2, 6, 3, 7)};
    rows[0] = __builtin_shufflevector(low[0], low[1], 0, 1, 4, 5);
    rows[1] = __builtin_shufflevector(low[0], low[1], 2, 3, 6, 7);
    rows[2] = __builtin_shufflevector(high[0], high[1], 0, 1, 4, 5);
    rows[3] = __builtin_shufflevector(high[0], high[1], 2, 3, 6, 7);
    for (std::size_t i = 0; i < 4; ++i)
        std::memcpy(to + i * to_row, &rows[i], sizeof(Four));
}

} // namespace

void transpose(const float *from, std::size_t from_row, std::size_t n, std::size_t k, float *to,
               std::size_t to_row) {
    std::size_t i = 0;
    for (; i + 4 <= k; i += 4) {
        std::size_t j = 0;
        for (; j + 4 <= n; j += 4)
            transpose_block(from + j * from_row + i, from_row, to + i * to_row + j, to_row);
        for (; j < n; ++j)
            for (std::size_t at = i; at < i + 4; ++at)
                to[at * to_row + j] = from[j * from_row + at];
    }
    for (; i < k; ++i)
        for (std::size_t j = 0; j < n; ++j)
            to[i * to_row + j] = from[j * from_row + i];
}

} // namespace ssbhash
