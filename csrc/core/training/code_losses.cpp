#include "core/training/code_losses.hpp"
#include "core/base/dispatch.hpp"
#include "core/training/training_kernels.hpp"

#include <algorithm>
#include <cmath>

namespace ssbhash {

namespace {

// [n, width] to [width, n_padded], zeros beyond n.
void to_columns(const float *rows, std::size_t n, std::size_t width, std::size_t n_padded,
                float *columns) {
    for (std::size_t j = 0; j < width; ++j, columns += n_padded) {
        for (std::size_t i = 0; i < n; ++i)
            columns[i] = rows[i * width + j];
        std::fill(columns + n, columns + n_padded, 0.0f);
    }
}

} // namespace

// B log 2 + sum_j p l - softplus(l), whose derivative by l is p (1 - p) l. The logarithms
// of a few factors in [1, 2] are taken together.
double LatentLoss::diverge(const LatentBatch &batch, float factor, float *heads) {
    constexpr std::size_t n_together = 32;
    const std::size_t width = batch.n_bits + batch.n_classes;
    exps_.resize(batch.n_bits);
    double sum = 0;
    for (std::size_t i = 0; i < batch.n; ++i) {
        const float *logits = batch.heads + i * width;
        for (std::size_t bit = 0; bit < batch.n_bits; ++bit)
            exps_[bit] = -std::abs(logits[bit]);
        active_isa().training.exp_negatives(exps_.data(), batch.n_bits);
        double product = 1;
        for (std::size_t bit = 0; bit < batch.n_bits; ++bit) {
            const float logit = logits[bit], tail = exps_[bit], other = tail / (1 + tail);
            product *= 1.0 + static_cast<double>(tail);
            sum -= static_cast<double>(std::abs(logit) * other);
            if (bit % n_together == n_together - 1 || bit + 1 == batch.n_bits) {
                sum -= std::log(product);
                product = 1;
            }
            heads[i * width + bit] = factor * other / (1 + tail) * logit;
        }
    }
    return sum / static_cast<double>(batch.n) + static_cast<double>(batch.n_bits) * std::log(2.0);
}

// Cross-entropy; labels whose probability is at the floor have no gradient.
double LatentLoss::classify(const LatentBatch &batch, float factor, float *heads) {
    const std::size_t n_classes = batch.n_classes, width = batch.n_bits + n_classes;
    probabilities_.resize(batch.n * n_classes);
    double loss = 0;
    for (std::size_t i = 0; i < batch.n; ++i) {
        const float *scores = batch.heads + i * width + batch.n_bits;
        const float *labels = batch.labels + i * n_classes;
        float *p = probabilities_.data() + i * n_classes;
        float *gradient = heads + i * width + batch.n_bits;
        const float top = *std::max_element(scores, scores + n_classes);
        for (std::size_t c = 0; c < n_classes; ++c)
            p[c] = scores[c] - top;
        active_isa().training.exp_negatives(p, n_classes);
        float total = 0, mass = 0;
        for (std::size_t c = 0; c < n_classes; ++c)
            total += p[c];
        const float log_total = std::log(total) + top;
        for (std::size_t c = 0; c < n_classes; ++c) {
            const float log_p = scores[c] - log_total;
            p[c] /= total;
            loss -= static_cast<double>(labels[c] * std::max(log_p, batch.log_floor));
            gradient[c] = log_p > batch.log_floor ? labels[c] : 0;
            mass += gradient[c];
        }
        for (std::size_t c = 0; c < n_classes; ++c)
            gradient[c] = factor * (p[c] * mass - gradient[c]);
    }
    return loss / static_cast<double>(batch.n);
}

// The pair term; its gradient with respect to the code is left in pair_code_.
double LatentLoss::compare(const LatentBatch &batch, float factor, float *heads) {
    const std::size_t n = batch.n, n_bits = batch.n_bits, n_classes = batch.n_classes;
    const std::size_t n_padded = (n + kBitBlock - 1) / kBitBlock * kBitBlock;
    code_columns_.resize(n_bits * n_padded);
    class_columns_.resize(n_classes * n_padded);
    scratch_.resize(2 * n_padded);
    pair_code_.resize(n * n_bits);
    pair_classes_.resize(n * n_classes);
    to_columns(batch.code, n, n_bits, n_padded, code_columns_.data());
    to_columns(batch.predicted ? probabilities_.data() : batch.labels, n, n_classes, n_padded,
               class_columns_.data());
    const double loss = active_isa().training.pair_loss(
        {code_columns_.data(), class_columns_.data(), n, n_padded, n_bits, n_classes,
         scratch_.data(), scratch_.data() + n_padded, pair_code_.data(), pair_classes_.data()});
    for (std::size_t i = 0; batch.predicted && i < n; ++i) {
        const float *p = probabilities_.data() + i * n_classes;
        const float *by_p = pair_classes_.data() + i * n_classes;
        float *gradient = heads + i * (n_bits + n_classes) + n_bits, mean = 0;
        for (std::size_t c = 0; c < n_classes; ++c)
            mean += p[c] * by_p[c];
        for (std::size_t c = 0; c < n_classes; ++c)
            gradient[c] += factor * p[c] * (by_p[c] - mean);
    }
    return loss;
}

LatentTerms LatentLoss::step(const LatentBatch &batch, const LatentTerms &factors, float *heads) {
    const auto n = static_cast<float>(batch.n), code_factor = static_cast<float>(factors.code),
               pair_factor = static_cast<float>(factors.pair);
    const bool with_classes = batch.n_classes != 0;
    LatentTerms terms{};
    terms.kl = diverge(batch, static_cast<float>(factors.kl) / n, heads);
    if (with_classes) {
        terms.point = classify(batch, static_cast<float>(factors.point) / n, heads);
        terms.pair = compare(batch, pair_factor, heads);
    }
    for (std::size_t i = 0; i < batch.n; ++i, heads += batch.n_bits + batch.n_classes)
        for (std::size_t bit = 0; bit < batch.n_bits; ++bit) {
            const std::size_t at = i * batch.n_bits + bit;
            const float slope = batch.code[at] * (1 - batch.code[at]) / batch.tau;
            const float by_pairs = with_classes ? pair_factor * pair_code_[at] : 0;
            heads[bit] += slope * (code_factor * batch.grad_code[at] + by_pairs);
        }
    return terms;
}

} // namespace ssbhash
