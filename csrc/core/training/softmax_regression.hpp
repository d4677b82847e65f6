// The multinomial decoder: softmax regression on codes, with its gradients.
#pragma once

#include "core/training/layers.hpp"

namespace ssbhash {

// logits = code W^T + bias: code [n_items, n_bits], weight [n_targets, n_bits].
struct Decoder {
    const float *code, *weight, *bias;
    std::size_t n_items, n_bits, n_targets;
};

// Gradients of the loss, of the shapes of code, weight and bias.
struct DecoderGradient {
    float *code, *weight, *bias;
};

// Returns the loss, and writes its gradients. With t a row of `target`, the loss is the mean over
// items of -sum_d t_d max(log softmax(logits)_d, log_floor). Terms at the floor have no gradient.
double softmax_regression(const Decoder &decoder, const SparseRows &target, float log_floor,
                          const DecoderGradient &gradient, std::size_t n_threads);

} // namespace ssbhash
