#include "core/training/decoder.hpp"
#include "core/base/dispatch.hpp"
#include "core/training/small_matrices.hpp"
#include "core/training/training_kernels.hpp"

#include <algorithm>
#include <cmath>

namespace ssbhash {

namespace {

// exp(0 + this - top) is nothing beside the sum of a tile.
constexpr float kNoTarget = -1e30f;

std::size_t round_up(std::size_t n, std::size_t unit) { return (n + unit - 1) / unit * unit; }

// One tile of the decoder, in memory of this thread but for what can be read in place.
struct Packed {
    std::vector<float, AlignedAllocator<float>> panels, rows, biases, code;
    const float *weight, *bias; // [kTileTargets, width], [kTileTargets]

    void pack(const Decoder &decoder, std::size_t first, std::size_t width) {
        const std::size_t n_bits = decoder.n_bits;
        const std::size_t n = std::min(kTileTargets, decoder.n_targets - first);
        weight = decoder.weight + first * n_bits;
        bias = decoder.bias + first;
        if (n < kTileTargets || n_bits < width)
            pad(n, n_bits, width);
        panels.resize(kTileTargets * n_bits);
        for (std::size_t j = 0; j < kTileTargets; j += kPanel)
            transpose(weight + j * width, width, kPanel, n_bits, panels.data() + j * n_bits,
                      kPanel);
    }

  private:
    void pad(std::size_t n, std::size_t n_bits, std::size_t width) {
        rows.assign(kTileTargets * width, 0.0f);
        biases.assign(kTileTargets, kNoTarget);
        for (std::size_t j = 0; j < n; ++j)
            copy_short(weight + j * n_bits, n_bits, rows.data() + j * width);
        std::copy_n(bias, n, biases.begin());
        weight = rows.data();
        bias = biases.data();
    }
};

Packed &packed() {
    thread_local Packed memory;
    return memory;
}

} // namespace

void SoftmaxRegression::resize(const Decoder &decoder, bool with_gradient) {
    n_items_ = decoder.n_items;
    n_bits_ = decoder.n_bits;
    n_targets_ = decoder.n_targets;
    n_rows_ = round_up(n_items_, kItemBlock);
    width_ = round_up(n_bits_, kBitBlock);
    n_tiles_ = round_up(n_targets_, kTileTargets) / kTileTargets;
    ++n_batches_;
    exp_.resize(n_tiles_ * n_rows_ * kTileTargets);
    for (Memory *memory : {&top_, &sum_, &share_})
        memory->resize(n_tiles_ * n_rows_);
    product_.resize(with_gradient ? n_tiles_ * n_rows_ * width_ : 0);
    code_.resize(n_rows_ * n_bits_);
    std::copy_n(decoder.code, n_items_ * n_bits_, code_.begin());
    std::fill(code_.begin() + static_cast<std::ptrdiff_t>(n_items_ * n_bits_), code_.end(), 0.0f);
}

void SoftmaxRegression::forward_tile(const Decoder &decoder, std::size_t tile, bool with_gradient) {
    Packed &weights = packed();
    weights.pack(decoder, tile * kTileTargets, width_);
    const std::size_t rows = tile * n_rows_;
    // Rows that products of whole blocks read, though no item has them.
    std::fill_n(exp_.data() + (rows + n_items_) * kTileTargets, (n_rows_ - n_items_) * kTileTargets,
                0.0f);
    active_isa().training.softmax_tile(
        {code_.data(), weights.panels.data(), weights.weight, weights.bias, n_items_, n_bits_,
         width_, exp_.data() + rows * kTileTargets, top_.data() + rows, sum_.data() + rows,
         with_gradient ? product_.data() + rows * width_ : nullptr});
}

// The loss; leaves the shares and what the target takes away from the gradients.
double SoftmaxRegression::compare(const Decoder &decoder, const SparseRows &target,
                                  float log_floor) {
    targets_.assign(target.columns, target.columns + target.n_values);
    items_.assign(target.n_values, 0);
    values_.assign(target.n_values, 0);
    const auto n = static_cast<float>(n_items_);
    double loss = 0;
    for (std::size_t i = 0; i < n_items_; ++i) {
        float top = top_[i];
        for (std::size_t tile = 1; tile < n_tiles_; ++tile)
            top = std::max(top, top_[tile * n_rows_ + i]);
        float total = 0;
        for (std::size_t at = i; at < n_tiles_ * n_rows_; at += n_rows_)
            total += sum_[at] * (share_[at] = std::exp(top_[at] - top));
        const float log_total = std::log(total) + top;
        const float *code = decoder.code + i * n_bits_;
        float mass = 0;
        for (std::size_t at = target.begin(i); at < target.end(i); ++at) {
            const float *weight = decoder.weight + static_cast<std::size_t>(targets_[at]) * n_bits_;
            float logit = decoder.bias[targets_[at]];
            for (std::size_t bit = 0; bit < n_bits_; ++bit)
                logit += code[bit] * weight[bit];
            const float log_p = logit - log_total, value = target.values[at];
            loss -= value * std::max(log_p, log_floor);
            items_[at] = static_cast<std::int64_t>(i);
            values_[at] = log_p > log_floor ? value / n : 0;
            mass += values_[at];
        }
        for (std::size_t at = i; at < n_tiles_ * n_rows_; at += n_rows_)
            share_[at] *= mass / total;
    }
    return loss / static_cast<double>(n);
}

void SoftmaxRegression::differentiate(const Decoder &decoder, float *grad_code) const {
    const auto add_scaled = active_isa().training.add_scaled;
    std::fill_n(grad_code, n_items_ * n_bits_, 0.0f);
    for (std::size_t tile = 0; tile < n_tiles_; ++tile)
        for (std::size_t i = 0; i < n_items_; ++i) {
            const std::size_t at = tile * n_rows_ + i;
            add_scaled(grad_code + i * n_bits_, product_.data() + at * width_, share_[at], n_bits_);
        }
    for (std::size_t at = 0; at < values_.size(); ++at)
        add_scaled(grad_code + static_cast<std::size_t>(items_[at]) * n_bits_,
                   decoder.weight + static_cast<std::size_t>(targets_[at]) * n_bits_, -values_[at],
                   n_bits_);
}

double SoftmaxRegression::forward(const Decoder &decoder, const SparseRows &target, float log_floor,
                                  float *grad_code, std::size_t n_threads) {
    const bool with_gradient = grad_code != nullptr;
    resize(decoder, with_gradient);
    parallel_for(n_tiles_, n_threads, [&](std::size_t tile, const Check &) {
        forward_tile(decoder, tile, with_gradient);
    });
    const double loss = compare(decoder, target, log_floor);
    if (with_gradient)
        differentiate(decoder, grad_code);
    return loss;
}

void SoftmaxRegression::backward_tile(std::size_t tile, float factor, float *weight,
                                      float *bias) const {
    Packed &memory = packed();
    const std::size_t first = tile * kTileTargets, rows = tile * n_rows_;
    const std::size_t n = std::min(kTileTargets, n_targets_ - first);
    const bool in_place = n == kTileTargets && n_bits_ == width_;
    memory.code.resize(n_items_ * width_);
    memory.biases.resize(kTileTargets);
    if (!in_place)
        memory.rows.resize(kTileTargets * width_);
    float *gradient = in_place ? weight + first * n_bits_ : memory.rows.data();
    for (std::size_t i = 0; i < n_items_; ++i) {
        const float share = factor * share_[rows + i];
        float *row = memory.code.data() + i * width_;
        std::fill_n(row, width_, 0.0f);
        for (std::size_t bit = 0; bit < n_bits_; ++bit)
            row[bit] = share * code_[i * n_bits_ + bit];
    }
    active_isa().training.softmax_gradient({exp_.data() + rows * kTileTargets, memory.code.data(),
                                            share_.data() + rows, n_items_, width_, gradient,
                                            memory.biases.data()});
    for (std::size_t j = 0; j < n; ++j)
        bias[first + j] = factor * memory.biases[j];
    for (std::size_t j = 0; j < n && !in_place; ++j)
        copy_short(gradient + j * width_, n_bits_, weight + (first + j) * n_bits_);
}

void SoftmaxRegression::backward(float factor, float *weight, float *bias,
                                 std::size_t n_threads) const {
    // The last tiles are still in the second-level cache.
    parallel_for(n_tiles_, n_threads, [&](std::size_t task, const Check &) {
        backward_tile(n_tiles_ - 1 - task, factor, weight, bias);
    });
    const auto add_scaled = active_isa().training.add_scaled;
    for (std::size_t at = 0; at < values_.size(); ++at) {
        const auto target = static_cast<std::size_t>(targets_[at]);
        add_scaled(weight + target * n_bits_,
                   code_.data() + static_cast<std::size_t>(items_[at]) * n_bits_,
                   -factor * values_[at], n_bits_);
        bias[target] -= factor * values_[at];
    }
}

} // namespace ssbhash
