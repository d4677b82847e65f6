#include "core/training/csr_batches.hpp"

#include <algorithm>
#include <array>
#include <utility>

namespace ssbhash {

namespace {

// Positions of the non-zeros by column, by a radix sort, which keeps the order of equals.
std::vector<std::size_t> order_by(const std::int64_t *columns, std::size_t n) {
    std::vector<std::size_t> order(n), next(n);
    std::int64_t largest = 0;
    for (std::size_t i = 0; i < n; ++i) {
        order[i] = i;
        largest = std::max(largest, columns[i]);
    }
    for (int shift = 0; shift < 63 && largest >> shift != 0; shift += 8) {
        const auto digit = [&](std::size_t i) {
            return static_cast<std::size_t>(columns[i] >> shift & 255);
        };
        std::array<std::size_t, 257> starts{};
        for (std::size_t i = 0; i < n; ++i)
            ++starts[digit(i) + 1];
        for (std::size_t i = 0; i < 256; ++i)
            starts[i + 1] += starts[i];
        for (const std::size_t i : order)
            next[starts[digit(i)]++] = i;
        std::swap(order, next);
    }
    return order;
}

} // namespace

Batch transpose(const std::int64_t *columns, const std::int64_t *rows, const float *values,
                std::size_t n, std::vector<std::int64_t> &present) {
    Batch batch;
    batch.columns.reserve(n);
    batch.values.reserve(n);
    present.clear();
    for (const std::size_t i : order_by(columns, n)) {
        if (present.empty() || present.back() != columns[i]) {
            present.push_back(columns[i]);
            batch.starts.push_back(static_cast<std::int64_t>(batch.columns.size()));
        }
        batch.columns.push_back(rows[i]);
        batch.values.push_back(values[i]);
    }
    return batch;
}

} // namespace ssbhash
