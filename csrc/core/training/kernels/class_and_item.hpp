// The loss of the default SSB-VAE.
#pragma once

#include "core/training/class_and_item.hpp"
#include "core/training/kernels/layers.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

namespace ssbhash::SSBHASH_ISA::training {
namespace {

float sum(Floats values) {
    float total = 0;
    for (std::size_t i = 0; i < kLanes; ++i)
        total += values[i];
    return total;
}

// The cross-entropy of one item with n classes; `slope` is its derivative by the scores.
float softmax_entropy(const float *scores, const float *target, std::size_t n, float *slope) {
    const float top = *std::max_element(scores, scores + n);
    Floats totals{}, hits{};
    for_vectors(n, 0, [&](std::size_t c, std::size_t lanes) {
        const Floats below = load(scores + c, lanes) - top;
        store(slope + c, exp_negative(below), lanes);
        totals += load(slope + c, lanes); // lanes beyond the last class are 0 now
        hits += load(target + c, lanes) * below;
    });
    const float total = sum(totals);
    for_vectors(n, 0, [&](std::size_t c, std::size_t lanes) {
        const Floats p = load(slope + c, lanes) / total;
        store(slope + c, p - load(target + c, lanes), lanes);
    });
    return std::log(total) - sum(hits);
}

// The same for classes that do not exclude each other.
float sigmoid_entropy(const float *scores, const float *target, std::size_t n, float *slope) {
    for_vectors(n, 0, [&](std::size_t c, std::size_t lanes) {
        const Floats score = load(scores + c, lanes);
        store(slope + c, exp_negative(-larger(score, -score)), lanes);
    });
    double total = 0, product = 1; // one logarithm for many classes
    for (std::size_t c = 0; c < n; ++c) {
        const float score = scores[c], exp = slope[c];
        total += (score > 0 ? score : 0) - score * target[c];
        product *= 1 + exp;
        if (product > 1e100) {
            total += std::log(product);
            product = 1;
        }
        slope[c] = (score < 0 ? exp : 1) / (1 + exp) - target[c];
    }
    return static_cast<float>(total + std::log(product));
}

void add_classes(const ClassAndItem &loss, ClassAndItemGradient &gradient) {
    const auto entropy = loss.multilabel ? sigmoid_entropy : softmax_entropy;
    for (std::size_t i = 0; i < loss.n; ++i) {
        float *slope = gradient.outputs + i * loss.n_outputs();
        const float *target = loss.target + i * loss.n_classes;
        const float each =
            entropy(loss.outputs + i * loss.n_outputs(), target, loss.n_classes, slope);
        for (std::size_t c = 0; c < loss.n_classes; ++c)
            slope[c] *= loss.share[i];
        if (i < loss.n_pairs)
            gradient.class_ += each * loss.share[i];
        else if (i >= 2 * loss.n_pairs)
            gradient.labelled += each * loss.share[i];
    }
}

// Mean cross-entropy of each item's neighbour among all neighbours, and the other way round, by
// scale * cosine.
void add_contrast(const ClassAndItem &loss, ClassAndItemGradient &gradient) {
    const std::size_t n = loss.n_pairs;
    // The factors of the rows, 1 / (sum of the exponentials) of each item and neighbour, and the
    // products of the rows with their gradients.
    std::vector<float> factor(2 * n), inverse(2 * n), along(2 * n);
    for (std::size_t i = 0; i < 2 * n; ++i) {
        Floats squares{};
        const float *row = loss.outputs + i * loss.n_outputs() + loss.n_classes;
        for_vectors(loss.width, 0, [&](std::size_t k, std::size_t lanes) {
            squares += load(row + k, lanes) * load(row + k, lanes);
        });
        const float length = std::sqrt(sum(squares));
        factor[i] = std::sqrt(loss.scale) / (length > loss.least ? length : loss.least);
    }
    float *of_neighbours = inverse.data() + n, *along_neighbours = along.data() + n;
    for (std::size_t i = 0; i < n; ++i) {
        const float *products = loss.products + i * n;
        float *exp = gradient.slopes + i * n;
        Floats total{};
        // No score is above the scale.
        for_vectors(n, 0, [&](std::size_t j, std::size_t lanes) {
            const Floats factors = factor[i] * load(factor.data() + n + j, lanes);
            store(exp + j, exp_negative(factors * load(products + j, lanes) - loss.scale), lanes);
            const Floats stored = load(exp + j, lanes);
            total += stored;
            store(of_neighbours + j, load(of_neighbours + j, lanes) + stored, lanes);
        });
        inverse[i] = sum(total);
        gradient.contrast -= factor[i] * factor[n + i] * products[i];
    }
    for (float &x : inverse) {
        gradient.contrast += (std::log(x) + loss.scale) / 2;
        x = 1 / x;
    }
    gradient.contrast /= static_cast<double>(n);
    const float weight = loss.contrast_weight / static_cast<float>(2 * n);
    for (std::size_t i = 0; i < n; ++i) {
        const float *products = loss.products + i * n;
        float *slope = gradient.slopes + i * n;
        slope[i] -= 2 / (inverse[i] + of_neighbours[i]); // of its own pair
        Floats total{};
        for_vectors(n, 0, [&](std::size_t j, std::size_t lanes) {
            const Floats factors = weight * factor[i] * load(factor.data() + n + j, lanes);
            const Floats inverses = inverse[i] + load(of_neighbours + j, lanes);
            const Floats by_product = load(slope + j, lanes) * inverses * factors;
            store(slope + j, by_product, lanes);
            const Floats moved = by_product * load(products + j, lanes);
            total += moved;
            store(along_neighbours + j, load(along_neighbours + j, lanes) + moved, lanes);
        });
        along[i] = sum(total);
    }
    // A change along a row does not change its direction.
    for (std::size_t i = 0; i < 2 * n; ++i) {
        const std::size_t at = i * loss.n_outputs() + loss.n_classes;
        const float back = -along[i] * (factor[i] * factor[i] / loss.scale);
        for_vectors(loss.width, 0, [&](std::size_t k, std::size_t lanes) {
            store(gradient.outputs + at + k, back * load(loss.outputs + at + k, lanes), lanes);
        });
    }
    for (std::size_t i = 2 * n; i < loss.n; ++i)
        std::fill_n(gradient.outputs + i * loss.n_outputs() + loss.n_classes, loss.width, 0.0f);
}

void class_and_item(const ClassAndItem &loss, ClassAndItemGradient &gradient) {
    gradient.class_ = gradient.contrast = gradient.labelled = 0;
    add_classes(loss, gradient);
    add_contrast(loss, gradient);
}

} // namespace
} // namespace ssbhash::SSBHASH_ISA::training
