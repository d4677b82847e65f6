// The multinomial decoder, softmax regression on codes, with its gradients.
#pragma once

#include "core/base/aligned.hpp"
#include "core/training/training.hpp"

#include <cstdint>
#include <vector>

namespace ssbhash {

// logits = code W^T + bias: code [n_items, n_bits], weight [n_targets, n_bits].
struct Decoder {
    const float *code, *weight, *bias;
    std::size_t n_items, n_bits, n_targets;
};

// One batch after another through the decoder; keeps what the gradients need, in
// memory that it uses again.
class SoftmaxRegression {
  public:
    // Mean over items of -sum_d t_d max(log softmax(logits)_d, log_floor), t the rows of
    // `target`; terms at the floor have no gradient. `grad_code` [n_items, n_bits] gets the
    // gradient with respect to the code, where it is not null.
    double forward(const Decoder &decoder, const SparseRows &target, float log_floor,
                   float *grad_code, std::size_t n_threads);

    // `factor` times the gradients of the last batch: weight [n_targets, n_bits], bias.
    void backward(float factor, float *weight, float *bias, std::size_t n_threads) const;

    // Sizes of the last batch.
    std::size_t n_bits() const { return n_bits_; }
    std::size_t n_targets() const { return n_targets_; }

    // How many batches there were.
    std::size_t n_batches() const { return n_batches_; }

  private:
    using Memory = std::vector<float, AlignedAllocator<float>>;

    void resize(const Decoder &decoder, bool with_gradient);
    void forward_tile(const Decoder &decoder, std::size_t tile, bool with_gradient);
    void backward_tile(std::size_t tile, float factor, float *weight, float *bias) const;
    double compare(const Decoder &decoder, const SparseRows &target, float log_floor);
    void differentiate(const Decoder &decoder, float *grad_code) const;

    std::size_t n_items_ = 0, n_bits_ = 0, n_targets_ = 0, n_batches_ = 0;
    std::size_t n_rows_ = 0, width_ = 0, n_tiles_ = 0; // items and bits to whole blocks
    Memory code_;                                      // [n_rows, n_bits]
    Memory exp_;                 // [n_tiles, n_rows, kTileTargets], to the tile's top
    Memory top_, sum_, product_; // of each tile
    Memory share_;               // [n_tiles, n_rows]: exp times it is d loss / d logits
    // The target, values over n_items, zero where at the floor.
    std::vector<std::int64_t> targets_, items_;
    std::vector<float> values_;
};

} // namespace ssbhash
