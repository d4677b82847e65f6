// Tiles of softmax regression: three matrix products with the targets as their long side. Each
// keeps 12 vectors of sums in registers. Data that is read more than once stays in the first-level
// cache.
#pragma once

#include "core/training/kernels/layers.hpp"

namespace ssbhash::SSBHASH_ISA::training {
namespace {

constexpr std::size_t kSums = 12;
constexpr std::size_t kPanelVectors = kPanel / kLanes;
constexpr std::size_t kLogitItems = kSums / kPanelVectors;

static_assert(kBitBlock == kLanes && kItemBlock == kSums && kTileTargets % kPanel == 0);

// logits [kLogitItems, kPanel] = code times one panel.
void logits_block(const float *code, const float *panel, std::size_t n_bits, float *logits) {
    Floats sums[kLogitItems][kPanelVectors] = {};
    for (std::size_t bit = 0; bit < n_bits; ++bit, panel += kPanel) {
        Floats weights[kPanelVectors];
#pragma GCC unroll 12
        for (std::size_t v = 0; v < kPanelVectors; ++v)
            weights[v] = load(panel + v * kLanes);
#pragma GCC unroll 12
        for (std::size_t i = 0; i < kLogitItems; ++i) {
            const Floats factor = all(code[i * n_bits + bit]);
#pragma GCC unroll 12
            for (std::size_t v = 0; v < kPanelVectors; ++v)
                sums[i][v] += factor * weights[v];
        }
    }
#pragma GCC unroll 12
    for (std::size_t i = 0; i < kLogitItems; ++i)
#pragma GCC unroll 12
        for (std::size_t v = 0; v < kPanelVectors; ++v)
            store(logits + i * kTileTargets + v * kLanes, sums[i][v]);
}

// to = (or +=) sum over k of factors[., k] rows[k, .], for kSums / Vectors rows and `Vectors`
// vectors of columns.
template <std::size_t Vectors>
void add_outer(const Factors &left, std::size_t first, const float *rows, std::size_t width,
               const Sums &to, std::size_t column) {
    constexpr std::size_t n_rows = kSums / Vectors;
    const float *factors = left.data + first * left.step;
    float *out = to.data + first * to.row + column;
    Floats sums[n_rows][Vectors] = {};
    if (!to.fresh)
#pragma GCC unroll 12
        for (std::size_t r = 0; r < n_rows; ++r)
#pragma GCC unroll 12
            for (std::size_t v = 0; v < Vectors; ++v)
                sums[r][v] = load(out + r * to.row + v * kLanes);
    rows += column;
    for (std::size_t k = 0; k < left.n; ++k, rows += width, factors += left.k_step) {
        Floats row[Vectors];
#pragma GCC unroll 12
        for (std::size_t v = 0; v < Vectors; ++v)
            row[v] = load(rows + v * kLanes);
#pragma GCC unroll 12
        for (std::size_t r = 0; r < n_rows; ++r) {
            const Floats factor = all(factors[r * left.step]);
#pragma GCC unroll 12
            for (std::size_t v = 0; v < Vectors; ++v)
                sums[r][v] += factor * row[v];
        }
    }
#pragma GCC unroll 12
    for (std::size_t r = 0; r < n_rows; ++r)
#pragma GCC unroll 12
        for (std::size_t v = 0; v < Vectors; ++v)
            store(out + r * to.row + v * kLanes, sums[r][v]);
}

// Computes the product in strips of columns.
void add_product(const Factors &left, const float *rows, std::size_t width, const Sums &to) {
    for (std::size_t column = 0; column < width;) {
        const std::size_t left_over = (width - column) / kLanes;
        const std::size_t n_vectors = left_over < 4 ? left_over : 4;
        const auto add = n_vectors == 4   ? add_outer<4>
                         : n_vectors == 3 ? add_outer<3>
                         : n_vectors == 2 ? add_outer<2>
                                          : add_outer<1>;
        for (std::size_t first = 0; first < to.n; first += kSums / n_vectors)
            add(left, first, rows, width, to, column);
        column += n_vectors * kLanes;
    }
}

// Replaces x by exp(y - max y), with y = x + bias. Returns max y; *sum becomes the sum of x.
float exp_row(float *x, const float *bias, float *sum) {
    static_assert(kTileTargets % (2 * kLanes) == 0);
    Floats tops[2] = {all(x[0] + bias[0]), all(x[0] + bias[0])};
    for (std::size_t i = 0; i < kTileTargets; i += 2 * kLanes)
        for (std::size_t part = 0; part < 2; ++part) {
            const std::size_t at = i + part * kLanes;
            tops[part] = larger(load(x + at) + load(bias + at), tops[part]);
        }
    tops[0] = larger(tops[0], tops[1]);
    float top = tops[0][0], total = 0;
    for (std::size_t lane = 0; lane < kLanes; ++lane)
        top = tops[0][lane] > top ? tops[0][lane] : top;

    Floats totals[2] = {};
    for (std::size_t i = 0; i < kTileTargets; i += 2 * kLanes)
        for (std::size_t part = 0; part < 2; ++part) {
            const std::size_t at = i + part * kLanes;
            const Floats values = exp_negative(load(x + at) + load(bias + at) - top);
            store(x + at, values);
            totals[part] += values;
        }
    for (std::size_t lane = 0; lane < kLanes; ++lane)
        total += totals[0][lane] + totals[1][lane];
    *sum = total;
    return top;
}

void softmax_tile(const SoftmaxTile &tile) {
    constexpr std::size_t n_together = 5 * kPanel; // a strip of W in the first-level cache
    for (std::size_t panel = 0; panel < kTileTargets / kPanel; ++panel)
        for (std::size_t i = 0; i < tile.n_items; i += kLogitItems)
            logits_block(tile.code + i * tile.n_bits, tile.panels + panel * kPanel * tile.n_bits,
                         tile.n_bits, tile.exp + i * kTileTargets + panel * kPanel);
    for (std::size_t i = 0; i < tile.n_items; ++i)
        tile.top[i] = exp_row(tile.exp + i * kTileTargets, tile.bias, tile.sum + i);
    for (std::size_t at = 0; at < kTileTargets; at += n_together)
        add_product({tile.exp + at, kTileTargets, 1, n_together}, tile.weight + at * tile.width,
                    tile.width, {tile.product, tile.width, tile.n_items, at == 0});
}

void softmax_gradient(const SoftmaxGradient &tile) {
    constexpr std::size_t n_together = 128; // rows of code in the first-level cache
    for (std::size_t i = 0; i < kTileTargets; ++i)
        tile.bias[i] = 0;
    for (std::size_t at = 0; at < tile.n_items; at += n_together) {
        const std::size_t left = tile.n_items - at, n = left < n_together ? left : n_together;
        // This comes first because it reads the tile in order, which fetches it into the cache.
        for (std::size_t i = at; i < at + n; ++i)
            add_scaled(tile.bias, tile.exp + i * kTileTargets, tile.share[i], kTileTargets);
        add_product({tile.exp + at * kTileTargets, 1, kTileTargets, n}, tile.code + at * tile.width,
                    tile.width, {tile.weight, tile.width, kTileTargets, at == 0});
    }
}

} // namespace
} // namespace ssbhash::SSBHASH_ISA::training
