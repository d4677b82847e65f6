// The training functions that each instruction set fills in; see search_kernels.hpp.
#pragma once

#include "core/training/class_and_item.hpp"
#include "core/training/layers.hpp"

#include <cstddef>

namespace ssbhash {

// Most columns of a layer that are normalised together.
constexpr std::size_t kNormColumns = 512;

// Softmax regression works on tiles of kTileTargets targets, packed in panels of kPanel. A row of
// a tile takes 30 cache lines; at a power of two its rows would share cache sets.
constexpr std::size_t kTileTargets = 480, kPanel = 24;
// Items and bits are padded to a multiple of these.
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
    float *product;   // E W [n_items, width]
};

// The tile's gradients: E^T code [kTileTargets, width] and E^T share [kTileTargets].
struct SoftmaxGradient {
    const float *exp, *code, *share;
    std::size_t n_items, width;
    float *weight, *bias;
};

// Left side of a product, [n_out, n]. Element (i, k) lies at i * step + k * k_step. Memory extends
// to a multiple of kItemBlock rows.
struct Factors {
    const float *data;
    std::size_t step, k_step, n;
};

// Result of a product [n, width]; `row` is its row stride. Memory extends to a multiple of
// kItemBlock rows.
struct Sums {
    float *data;
    std::size_t row, n;
    bool fresh; // true: sums start at zero; false: they are added to
};

// One row of weights, both moments of Adam and the average if there is one, or a piece of them.
struct AdamRow {
    float *weight, *mean, *square;
    float eps;
    float *average;
    float share; // of the way from the average to the weight, that a step moves the average
};

struct TrainingKernels {
    // Take the missed steps, w -= step m / (sqrt(v) + eps), and let the moments decay. Meanwhile
    // the row `ahead` floats further on is fetched into the cache.
    void (*catch_up)(const AdamRow &row, std::size_t n, std::ptrdiff_t ahead, float step,
                     float mean_decay, float square_decay);

    // One Adam step.
    void (*step)(const AdamRow &row, const float *grad, std::size_t n, std::ptrdiff_t ahead,
                 float step);

    // sum += factor * row.
    void (*add_scaled)(float *sum, const float *row, float factor, std::size_t n);

    // to [width] = sum of values[i] times row columns[i] of matrix [., width].
    void (*sum_rows)(const std::int64_t *columns, const float *values, std::size_t n_rows,
                     const float *matrix, std::size_t width, float *to);

    // See layers.hpp.
    void (*dropped)(const float *x, std::size_t n, const Dropout &dropout, float *out);

    // See relu_norm and relu_norm_backward in layers.hpp: columns first ... first + n,
    // n <= kNormColumns.
    void (*relu_norm)(const ReluNorm &layer, std::size_t first, std::size_t n);
    void (*relu_norm_backward)(const ReluNormGradient &layer, std::size_t first, std::size_t n);

    void (*softmax_tile)(const SoftmaxTile &tile);
    void (*softmax_gradient)(const SoftmaxGradient &tile);

    // See class_and_item.hpp.
    void (*class_and_item)(const ClassAndItem &loss, ClassAndItemGradient &gradient);
};

} // namespace ssbhash
