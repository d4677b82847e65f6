#include "core/training/softmax_regression.hpp"
#include "core/base/aligned.hpp"
#include "core/base/dispatch.hpp"
#include "core/base/threads.hpp"
#include "core/training/small_matrices.hpp"
#include "core/training/training_kernels.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

namespace ssbhash {

namespace {

// Bias of the padding targets of a tile. Their exponential is zero.
constexpr float kNoTarget = -1e30f;

std::size_t round_up(std::size_t n, std::size_t unit) { return (n + unit - 1) / unit * unit; }

// The weights of one tile. Whole tiles are read in place; others are copied to this thread's
// memory.
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

// Softmax regression of one batch, in tiles of kTileTargets targets. The exponentials of a tile
// stay in the second-level cache.
class Regression {
  public:
    double run(const Decoder &decoder, const SparseRows &target, float log_floor,
               const DecoderGradient &gradient, std::size_t n_threads);

  private:
    using Memory = std::vector<float, AlignedAllocator<float>>;

    void resize();
    void exponentiate(std::size_t tile);
    double compare(const SparseRows &target, float log_floor);
    void differentiate_code(float *gradient) const;
    void differentiate_weight(std::size_t tile, const DecoderGradient &gradient) const;

    Decoder decoder_;
    std::size_t n_rows_, width_, n_tiles_; // items and bits, padded to whole blocks; tiles
    Memory code_;                          // [n_rows, n_bits]
    Memory exp_;                           // [n_tiles, n_rows, kTileTargets] exp(logit - top)
    Memory top_, sum_, product_;           // of each tile
    Memory share_;                         // [n_tiles, n_rows] d loss / d logits = exp * share
    // The target's non-zeros: values / n_items, or zero for terms at the floor.
    std::vector<std::int64_t> targets_, items_;
    std::vector<float> values_;
};

void Regression::resize() {
    const std::size_t n_values = decoder_.n_items * decoder_.n_bits;
    n_rows_ = round_up(decoder_.n_items, kItemBlock);
    width_ = round_up(decoder_.n_bits, kBitBlock);
    n_tiles_ = round_up(decoder_.n_targets, kTileTargets) / kTileTargets;
    exp_.resize(n_tiles_ * n_rows_ * kTileTargets);
    for (Memory *memory : {&top_, &sum_, &share_})
        memory->resize(n_tiles_ * n_rows_);
    product_.resize(n_tiles_ * n_rows_ * width_);
    code_.resize(n_rows_ * decoder_.n_bits);
    std::copy_n(decoder_.code, n_values, code_.begin());
    std::fill(code_.begin() + static_cast<std::ptrdiff_t>(n_values), code_.end(), 0.0f);
}

void Regression::exponentiate(std::size_t tile) {
    Packed &weights = packed();
    weights.pack(decoder_, tile * kTileTargets, width_);
    const std::size_t rows = tile * n_rows_;
    // Padding rows, which products of whole blocks read.
    std::fill_n(exp_.data() + (rows + decoder_.n_items) * kTileTargets,
                (n_rows_ - decoder_.n_items) * kTileTargets, 0.0f);
    active_isa().training.softmax_tile({code_.data(), weights.panels.data(), weights.weight,
                                        weights.bias, decoder_.n_items, decoder_.n_bits, width_,
                                        exp_.data() + rows * kTileTargets, top_.data() + rows,
                                        sum_.data() + rows, product_.data() + rows * width_});
}

// Returns the loss. Sets share_ and values_; the gradients subtract values_ at the target's words.
double Regression::compare(const SparseRows &target, float log_floor) {
    targets_.assign(target.columns, target.columns + target.n_values);
    items_.assign(target.n_values, 0);
    values_.assign(target.n_values, 0);
    const auto n = static_cast<float>(decoder_.n_items);
    double loss = 0;
    for (std::size_t i = 0; i < decoder_.n_items; ++i) {
        float top = top_[i];
        for (std::size_t tile = 1; tile < n_tiles_; ++tile)
            top = std::max(top, top_[tile * n_rows_ + i]);
        float total = 0;
        for (std::size_t at = i; at < n_tiles_ * n_rows_; at += n_rows_)
            total += sum_[at] * (share_[at] = std::exp(top_[at] - top));
        const float log_total = std::log(total) + top;
        const float *code = decoder_.code + i * decoder_.n_bits;
        float mass = 0;
        for (std::size_t at = target.begin(i); at < target.end(i); ++at) {
            const float *weight =
                decoder_.weight + static_cast<std::size_t>(targets_[at]) * decoder_.n_bits;
            float logit = decoder_.bias[targets_[at]];
            for (std::size_t bit = 0; bit < decoder_.n_bits; ++bit)
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

void Regression::differentiate_code(float *grad_code) const {
    const auto add_scaled = active_isa().training.add_scaled;
    std::fill_n(grad_code, decoder_.n_items * decoder_.n_bits, 0.0f);
    for (std::size_t tile = 0; tile < n_tiles_; ++tile)
        for (std::size_t i = 0; i < decoder_.n_items; ++i) {
            const std::size_t at = tile * n_rows_ + i;
            add_scaled(grad_code + i * decoder_.n_bits, product_.data() + at * width_, share_[at],
                       decoder_.n_bits);
        }
    for (std::size_t at = 0; at < values_.size(); ++at)
        add_scaled(grad_code + static_cast<std::size_t>(items_[at]) * decoder_.n_bits,
                   decoder_.weight + static_cast<std::size_t>(targets_[at]) * decoder_.n_bits,
                   -values_[at], decoder_.n_bits);
}

void Regression::differentiate_weight(std::size_t tile, const DecoderGradient &to) const {
    Packed &memory = packed();
    const std::size_t first = tile * kTileTargets, rows = tile * n_rows_;
    const std::size_t n = std::min(kTileTargets, decoder_.n_targets - first);
    const bool in_place = n == kTileTargets && decoder_.n_bits == width_;
    memory.code.resize(decoder_.n_items * width_);
    memory.biases.resize(kTileTargets);
    if (!in_place)
        memory.rows.resize(kTileTargets * width_);
    float *gradient = in_place ? to.weight + first * decoder_.n_bits : memory.rows.data();
    for (std::size_t i = 0; i < decoder_.n_items; ++i) {
        const float share = share_[rows + i];
        float *row = memory.code.data() + i * width_;
        std::fill_n(row, width_, 0.0f);
        for (std::size_t bit = 0; bit < decoder_.n_bits; ++bit)
            row[bit] = share * code_[i * decoder_.n_bits + bit];
    }
    active_isa().training.softmax_gradient({exp_.data() + rows * kTileTargets, memory.code.data(),
                                            share_.data() + rows, decoder_.n_items, width_,
                                            gradient, memory.biases.data()});
    std::copy_n(memory.biases.begin(), n, to.bias + first);
    for (std::size_t j = 0; j < n && !in_place; ++j)
        copy_short(gradient + j * width_, decoder_.n_bits,
                   to.weight + (first + j) * decoder_.n_bits);
}

double Regression::run(const Decoder &decoder, const SparseRows &target, float log_floor,
                       const DecoderGradient &gradient, std::size_t n_threads) {
    decoder_ = decoder;
    resize();
    parallel_for(n_tiles_, n_threads, [&](std::size_t tile, const Check &) { exponentiate(tile); });
    const double loss = compare(target, log_floor);
    differentiate_code(gradient.code);
    // Backwards, because the last tiles are still in the second-level cache.
    parallel_for(n_tiles_, n_threads, [&](std::size_t task, const Check &) {
        differentiate_weight(n_tiles_ - 1 - task, gradient);
    });
    const auto add_scaled = active_isa().training.add_scaled;
    for (std::size_t at = 0; at < values_.size(); ++at) {
        const auto word = static_cast<std::size_t>(targets_[at]);
        add_scaled(gradient.weight + word * decoder_.n_bits,
                   code_.data() + static_cast<std::size_t>(items_[at]) * decoder_.n_bits,
                   -values_[at], decoder_.n_bits);
        gradient.bias[word] -= values_[at];
    }
    return loss;
}

} // namespace

double softmax_regression(const Decoder &decoder, const SparseRows &target, float log_floor,
                          const DecoderGradient &gradient, std::size_t n_threads) {
    // Kept between batches: fresh megabytes would cause page faults for each batch.
    thread_local Regression memory;
    return memory.run(decoder, target, log_floor, gradient, n_threads);
}

} // namespace ssbhash
