// What training a hash does outside of matrix products.
#pragma once

#include "core/base/threads.hpp"

#include <cstdint>
#include <vector>

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

// Make the weights current; the moments too if their decays are given, else they decay
// later, in adam_step.
void catch_up(const AdamRows &adam, const Missed &missed, float eps, std::size_t n_threads);

// Rows of a sparse matrix, as embedding_bag takes them: the non-zeros of row i
// are starts[i] ... starts[i + 1], those of the last row end at n_values.
struct SparseRows {
    const std::int64_t *columns, *starts;
    const float *values;
    std::size_t n_rows, n_values;

    std::size_t begin(std::size_t row) const { return static_cast<std::size_t>(starts[row]); }
    std::size_t end(std::size_t row) const { return row + 1 < n_rows ? begin(row + 1) : n_values; }
};

// One step of the rows that were caught up, whose gradients are those of `sums` times
// matrix [n, width].
void adam_step(const AdamRows &adam, const Missed &missed, const SparseRows &sums,
               const float *matrix, float step, float eps, std::size_t n_threads);

// One step of consecutive parameters: those of grad[i] are sizes[i].
void adam_step(const AdamRows &adam, const std::vector<const float *> &grads,
               const std::vector<std::size_t> &sizes, float step, float eps, std::size_t n_threads);

// out [n_rows, width] = rows times weight [n_columns, width].
void sparse_product(const SparseRows &rows, const float *weight, std::size_t width, float *out,
                    std::size_t n_threads);

// x [n, width] = exp(x + bias - top) in place; top is each row's maximum of
// x + bias, sum that of the result.
void exp_rows(float *x, const float *bias, std::size_t n, std::size_t width, float *top, float *sum,
              std::size_t n_threads);

// Batch normalisation of x = max(product + bias, 0), all [n, width].
struct ReluNorm {
    const float *product, *bias, *scale, *shift;
    std::size_t n, width;
    float eps, momentum;
    float *rectified, *out; // x, and its normalisation
    float *shift_out;       // [width]; if given, the shift of `out` goes here, not into it
    float *mean, *inverse;  // of x: mean, 1 / sqrt(variance + eps), [width]
    float *running_mean, *running_variance;
};
void relu_norm(const ReluNorm &layer, std::size_t n_threads);

// Gradients with respect to product, bias, scale and shift, from that of `out`.
struct ReluNormGradient {
    const float *grad, *rectified, *mean, *inverse, *scale;
    std::size_t n, width;
    float *product, *bias, *scale_out, *shift_out;
};
void relu_norm_backward(const ReluNormGradient &layer, std::size_t n_threads);

} // namespace ssbhash
