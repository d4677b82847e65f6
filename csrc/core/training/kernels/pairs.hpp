// All pairs of a batch, one item against vectors of the others.
#pragma once

#include "core/training/kernels/vectors.hpp"

namespace ssbhash::SSBHASH_ISA::training {
namespace {

// exp(x) in place, x <= 0.
void exp_negatives(float *x, std::size_t n) {
    for (std::size_t i = 0; i < n; i += kLanes) {
        const std::size_t n_bytes = (n - i < kLanes ? n - i : kLanes) * sizeof(float);
        Floats values = {};
        std::memcpy(&values, x + i, n_bytes);
        values = exp_negative(values);
        std::memcpy(x + i, &values, n_bytes);
    }
}

float sum_of(Floats values) {
    float sum = 0;
    for (std::size_t lane = 0; lane < kLanes; ++lane)
        sum += values[lane];
    return sum;
}

float dot(const float *x, const float *y, std::size_t n) {
    Floats sum = {};
    for (std::size_t i = 0; i < n; i += kLanes)
        sum += load(x + i) * load(y + i);
    return sum_of(sum);
}

// S D + (1 - S) margin of item i with all, margin = max(0, B / 3 - D). Leaves the
// derivative by D, and D - margin, that by S.
float compare_item(const PairLoss &pairs, std::size_t i) {
    const float bound = static_cast<float>(pairs.n_bits) / 3;
    Floats sum = {};
    for (std::size_t j = 0; j < pairs.n_padded; j += kLanes) {
        Floats distance = {}, similar = {};
        const float *column = pairs.code + j;
        for (std::size_t bit = 0; bit < pairs.n_bits; ++bit, column += pairs.n_padded) {
            const Floats difference = load(column) - column[static_cast<std::ptrdiff_t>(i - j)];
            distance += difference * difference;
        }
        column = pairs.classes + j;
        for (std::size_t c = 0; c < pairs.n_classes; ++c, column += pairs.n_padded)
            similar += load(column) * column[static_cast<std::ptrdiff_t>(i - j)];
        const Floats margin = distance < bound ? bound - distance : Floats{};
        Floats slope = distance < bound ? 2 * similar - 1 : similar;
        Floats excess = distance - margin;
        Floats loss = margin + similar * excess;
        for (std::size_t lane = pairs.n - j; lane < kLanes; ++lane)
            slope[lane] = excess[lane] = loss[lane] = 0;
        store(pairs.slope + j, slope);
        store(pairs.excess + j, excess);
        sum += loss;
    }
    return sum_of(sum);
}

double pair_loss(const PairLoss &pairs) {
    const std::size_t n_padded = pairs.n_padded;
    const float scale = 1 / static_cast<float>(pairs.n_bits);
    double loss = 0;
    for (std::size_t i = 0; i < pairs.n; ++i) {
        loss += static_cast<double>(compare_item(pairs, i));
        Floats slopes = {};
        for (std::size_t j = 0; j < n_padded; j += kLanes)
            slopes += load(pairs.slope + j);
        const float total = sum_of(slopes);
        for (std::size_t bit = 0; bit < pairs.n_bits; ++bit) {
            const float *column = pairs.code + bit * n_padded;
            pairs.grad_code[i * pairs.n_bits + bit] =
                4 * scale * (column[i] * total - dot(pairs.slope, column, n_padded));
        }
        for (std::size_t c = 0; c < pairs.n_classes; ++c)
            pairs.grad_classes[i * pairs.n_classes + c] =
                2 * scale * dot(pairs.excess, pairs.classes + c * n_padded, n_padded);
    }
    return loss * static_cast<double>(scale);
}

} // namespace
} // namespace ssbhash::SSBHASH_ISA::training
