// Layers of a network, beside dense matrix products.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ssbhash {

// Non-zeros of a sparse matrix, row by row, as torch's embedding_bag takes them. Row i has those
// from starts[i] to starts[i + 1]; the last row's end at n_values.
struct SparseRows {
    const std::int64_t *columns, *starts;
    const float *values;
    std::size_t n_rows, n_values;

    std::size_t begin(std::size_t row) const { return static_cast<std::size_t>(starts[row]); }
    std::size_t end(std::size_t row) const { return row + 1 < n_rows ? begin(row + 1) : n_values; }
};

// out [n_rows, width] = rows times matrix [n_columns, width].
void sum_rows(const SparseRows &rows, const float *matrix, std::size_t width, float *out,
              std::size_t n_threads);

// Drops the units whose random byte is below `threshold`, and multiplies the others by `scale`.
// Without bytes nothing is dropped.
struct Dropout {
    const std::uint8_t *bytes = nullptr;
    std::int32_t threshold = 0;
    float scale = 1;
};

// out [n] = x after dropout.
void dropped(const float *x, std::size_t n, const Dropout &dropout, float *out,
             std::size_t n_threads);

// Batch normalisation of x = max(product + bias, 0), all [n, width], n >= 2; then dropout.
struct ReluNorm {
    const float *product, *bias, *scale, *shift;
    std::size_t n, width;
    float eps, momentum; // momentum: the batch's weight in the running statistics
    float *out;
    float *mean, *inverse; // [width] mean and 1 / sqrt(variance + eps) of x
    float *running_mean, *running_variance;
    Dropout dropout;
};
void relu_norm(const ReluNorm &layer, std::size_t n_threads);

// The gradients of product, bias, scale and shift, given `grad`, the gradient of `out`.
struct ReluNormGradient {
    const float *grad, *product, *bias, *mean, *inverse, *scale;
    std::size_t n, width;
    float *by_product, *by_bias, *by_scale, *by_shift;
    Dropout dropout;
};
void relu_norm_backward(const ReluNormGradient &layer, std::size_t n_threads);

} // namespace ssbhash
