// Loops over rows on threads.
#pragma once

#include "core/base/threads.hpp"

#include <algorithm>
#include <cstddef>

namespace ssbhash {

// Calls row(i, goes_on) for each of n rows. goes_on tells whether the same thread takes row i + 1.
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
