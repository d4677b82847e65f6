// What the paper's networks ask of the latent layer, with its gradient, in one call.
#pragma once

#include "core/base/aligned.hpp"

#include <cstddef>
#include <vector>

namespace ssbhash {

struct LatentBatch {
    const float *heads;     // [n, n_bits + n_classes]: logits of the bits, scores of the classes
    const float *code;      // [n, n_bits], relaxed bits of temperature tau
    const float *grad_code; // [n, n_bits], the gradient of all else than the pairs
    const float *labels;    // [n, n_classes], zeros where hidden
    std::size_t n, n_bits, n_classes;
    bool predicted; // pairs are similar by the predictions, not by the labels
    float tau, log_floor;
};

// The terms as in ssbhash/nn/losses.py; also their factors in the loss, and that of grad_code.
struct LatentTerms {
    double kl, point, pair, code;
};

// One batch after another, in memory that it uses again.
class LatentLoss {
  public:
    // `heads` gets the gradient of the batch's heads. Without classes there is only the KL.
    LatentTerms step(const LatentBatch &batch, const LatentTerms &factors, float *heads);

  private:
    using Memory = std::vector<float, AlignedAllocator<float>>;

    double diverge(const LatentBatch &batch, float factor, float *heads);
    double classify(const LatentBatch &batch, float factor, float *heads);
    double compare(const LatentBatch &batch, float factor, float *heads);

    Memory exps_, probabilities_;
    Memory code_columns_, class_columns_, scratch_;
    Memory pair_code_, pair_classes_; // gradients
};

} // namespace ssbhash
