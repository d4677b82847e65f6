// What training a hash does outside of matrix products.
#pragma once

#include "core/threads.hpp"

#include <cstdint>

namespace ssbhash {

// Weights and both moments of Adam, [n_rows, width] each.
struct AdamRows {
    float *weight, *mean, *square;
    std::size_t width;
};

// What each of n rows missed; see TrainingKernels::catch_up.
struct Missed {
    const std::int64_t *rows;
    const float *step, *mean_decay, *square_decay;
    std::size_t n;
};

void catch_up(const AdamRows &adam, const Missed &missed, float eps, std::size_t n_threads);

// One step of `n` rows with the gradients [n, width].
void adam_step(const AdamRows &adam, const std::int64_t *rows, std::size_t n, const float *grad,
               float step, float eps, std::size_t n_threads);

// Rows of a sparse matrix, as embedding_bag takes them: the non-zeros of row i
// are starts[i] ... starts[i + 1], those of the last row end at n_values.
struct SparseRows {
    const std::int64_t *columns, *starts;
    const float *values;
    std::size_t n_rows, n_values;
};

// out [n_rows, width] = rows times weight [n_columns, width].
void sparse_product(const SparseRows &rows, const float *weight, std::size_t width, float *out,
                    std::size_t n_threads);

// x [n, width] = exp(x + bias - top) in place; top is each row's maximum of
// x + bias, sum that of the result.
void exp_rows(float *x, const float *bias, std::size_t n, std::size_t width, float *top, float *sum,
              std::size_t n_threads);

} // namespace ssbhash
