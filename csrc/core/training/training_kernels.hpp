// The training functions that each instruction set fills in; see search_kernels.hpp.
#pragma once

#include "core/training/training.hpp"

#include <cstddef>

namespace ssbhash {

// Columns of a layer that are normalised together.
constexpr std::size_t kNormColumns = 64;

// Softmax regression is computed in tiles of so many targets, packed in panels of
// kPanel; 30 cache lines, so that the rows of a tile do not share cache sets.
constexpr std::size_t kTileTargets = 480, kPanel = 24;
// Rows of items, and bits, exist up to a multiple of these.
constexpr std::size_t kItemBlock = 12, kBitBlock = 8;

// One tile: E = exp(code W^T + bias - top), top the maximum of each row.
struct SoftmaxTile {
    const float *code;   // [n_items, n_bits]
    const float *panels; // W as [kTileTargets / kPanel, n_bits, kPanel]
    const float *weight; // W as [kTileTargets, width]
    const float *bias;   // [kTileTargets]
    std::size_t n_items, n_bits, width;
    float *exp;       // E [n_items, kTileTargets]
    float *top, *sum; // [n_items]; sum of each row of E
    float *product;   // E W [n_items, width]; null: not wanted
};

// The tile's gradients: E^T code [kTileTargets, width] and E^T share [kTileTargets].
struct SoftmaxGradient {
    const float *exp, *code, *share;
    std::size_t n_items, width;
    float *weight, *bias;
};

// The left side of a product, [n_out, n]: element (i, k) lies at i * step + k * k_step. Rows
// exist to the next multiple of kItemBlock.
struct Factors {
    const float *data;
    std::size_t step, k_step, n;
};

// Where a product [n, width] goes, to the next multiple of kItemBlock rows, `row` floats each.
struct Sums {
    float *data;
    std::size_t row, n;
    bool fresh; // whether they start at zero, not at what is there
};

// A left side with many zeros, by rows: row r has counts[r] factors, number i of them values[.] for
// row rows[.] of the right side, . = r * kSparseDepth + i. So many rows of the right side at most,
// kSparseColumns wide, fill most of the first-level cache.
constexpr std::size_t kSparseDepth = 104, kSparseColumns = 64;
static_assert(kSparseDepth % kBitBlock == 0 && kSparseDepth < 256);
struct SparseFactors {
    const float *values;
    const std::uint8_t *rows;
    const std::uint32_t *counts;
};

// All pairs of n items, by column: code [n_bits, n_padded], class probabilities
// [n_classes, n_padded], n_padded a multiple of kBitBlock.
struct PairLoss {
    const float *code, *classes;
    std::size_t n, n_padded, n_bits, n_classes;
    float *slope, *excess;           // scratch [n_padded]
    float *grad_code, *grad_classes; // [n, n_bits], [n, n_classes]
};

struct TrainingKernels {
    // Catch the weights of one row up with the Adam steps that it missed:
    // w -= step m / (sqrt(v) + eps). The row `ahead` floats further on is fetched meanwhile.
    void (*catch_up)(float *weight, const float *mean, const float *square, std::size_t n,
                     std::ptrdiff_t ahead, float step, float eps);

    // One Adam step of one row, whose moments first decay for the steps missed.
    void (*step)(float *weight, float *mean, float *square, const float *grad, std::size_t n,
                 std::ptrdiff_t ahead, float mean_decay, float square_decay, float step, float eps);

    // sum += factor * row.
    void (*add_scaled)(float *sum, const float *row, float factor, std::size_t n);

    // to [width] = sum of values[i] times row columns[i] of matrix [., width].
    void (*sum_rows)(const std::int64_t *columns, const float *values, std::size_t n_rows,
                     const float *matrix, std::size_t width, float *to);

    // y = x + bias, x = exp(y - max y) in place. Returns max y, and the sum in *sum.
    float (*exp_row)(float *x, const float *bias, std::size_t n, float *sum);

    // out = max(x + bias, 0) * scale + shift, all [n].
    void (*rectify)(const float *x, const float *bias, const float *scale, const float *shift,
                    std::size_t n, float *out);

    // See relu_norm and relu_norm_backward in training.hpp: columns first ... first + n,
    // n <= kNormColumns.
    void (*relu_norm)(const ReluNorm &layer, std::size_t first, std::size_t n);
    void (*relu_norm_backward)(const ReluNormGradient &layer, std::size_t first, std::size_t n);

    void (*softmax_tile)(const SoftmaxTile &tile);
    void (*softmax_gradient)(const SoftmaxGradient &tile);

    // to += left times rows [left.n, width], width a multiple of kBitBlock.
    void (*add_product)(const Factors &left, const float *rows, std::size_t width, const Sums &to);

    // List the non-zero ones of n <= kSparseDepth numbers, in order, with where they were; returns
    // how many. Both lists have room for kSparseDepth.
    std::uint32_t (*list_nonzeros)(const float *from, std::size_t n, float *values,
                                   std::uint8_t *places);

    // add_product where the left side has many zeros, and any number of rows; width up to
    // kSparseColumns.
    void (*add_sparse)(const SparseFactors &left, const float *rows, std::size_t width,
                       const Sums &to);

    // x = exp(x) in place, for x <= 0.
    void (*exp_negatives)(float *x, std::size_t n);

    // pair_loss of ssbhash/nn/losses.py, S_ij the product of the class probabilities.
    double (*pair_loss)(const PairLoss &pairs);
};

} // namespace ssbhash
