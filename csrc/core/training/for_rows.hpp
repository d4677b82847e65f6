// Rows shared out among threads.
#pragma once

#include "core/base/threads.hpp"

#include <algorithm>
#include <cstddef>

namespace ssbhash {

// Calls row(i, whether the same thread goes on with row i + 1) for each of n rows.
template <typename Row>
void for_rows(std::size_t n, std::size_t n_threads, const Row &row) {
    constexpr std::size_t n_together = 64;
    const auto task = [&](std::size_t index, const Check &) {
        const std::size_t end = std::min(n, (index + 1) * n_together);
        for (std::size_t i = index * n_together; i < end; ++i)
            row(i, i + 1 < end);
    };
    parallel_for((n + n_together - 1) / n_together, n_threads, task);
}

} // namespace ssbhash
