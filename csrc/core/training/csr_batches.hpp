// Batches of rows of a sparse matrix.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace ssbhash {

// Rows of a matrix in CSR form; non-zero i lies in row rows[i] and column columns[i].
struct Batch {
    std::vector<std::int64_t> columns, rows, starts;
    std::vector<float> values;
};

// Cut the rows `ids` out of a CSR matrix.
template <typename Index>
Batch cut_rows(const Index *indptr, const Index *indices, const float *values,
               const std::int64_t *ids, std::size_t n) {
    Batch batch;
    batch.starts.reserve(n);
    std::size_t n_values = 0;
    for (std::size_t i = 0; i < n; ++i) {
        batch.starts.push_back(static_cast<std::int64_t>(n_values));
        n_values += static_cast<std::size_t>(indptr[ids[i] + 1] - indptr[ids[i]]);
    }
    batch.columns.reserve(n_values);
    batch.rows.reserve(n_values);
    batch.values.reserve(n_values);
    constexpr std::size_t n_ahead = 8; // rows lie anywhere in memory
    for (std::size_t i = 0; i < n; ++i) {
        if (i + n_ahead < n) {
            __builtin_prefetch(indices + indptr[ids[i + n_ahead]]);
            __builtin_prefetch(values + indptr[ids[i + n_ahead]]);
        }
        for (Index at = indptr[ids[i]]; at < indptr[ids[i] + 1]; ++at) {
            batch.columns.push_back(static_cast<std::int64_t>(indices[at]));
            batch.rows.push_back(static_cast<std::int64_t>(i));
            batch.values.push_back(values[at]);
        }
    }
    return batch;
}

// The transpose's rows that are not empty: `present` has their numbers, ascending, and
// the batch's columns are the rows given. Each keeps the order of the non-zeros.
Batch transpose(const std::int64_t *columns, const std::int64_t *rows, const float *values,
                std::size_t n, std::vector<std::int64_t> &present);

} // namespace ssbhash
