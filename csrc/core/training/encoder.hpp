// The encoder of a training step on sparse rows: two layers, each a product, ReLU and batch
// normalisation, and heads on the last; forward, and backward into the gradients.
#pragma once

#include "core/base/aligned.hpp"
#include "core/training/rectified_product.hpp"
#include "core/training/training.hpp"

#include <vector>

namespace ssbhash {

// Weight [n_in, n_units]; all else [n_units]. The first layer's weight has no gradient here.
struct EncoderLayer {
    const float *weight, *bias, *scale, *shift;
    float *running_mean, *running_variance;
    float *grad_weight, *grad_bias, *grad_scale, *grad_shift;
    float eps;
};

// Linear, on the last layer: weight [n_units, width], bias [width].
struct EncoderHead {
    const float *weight, *bias;
    float *grad_weight, *grad_bias;
    std::size_t width;
};

struct EncoderNetwork {
    EncoderLayer first, second;
    std::vector<EncoderHead> heads;
    std::size_t n_units;
};

// One batch after another, in memory that it uses again.
class Encoder {
  public:
    // heads [n, all widths]; the running statistics move by `momentum`.
    void forward(const EncoderNetwork &network, const SparseRows &x, float momentum, float *heads,
                 std::size_t n_threads);

    // Gradients of the last batch from that of its heads; `product` [n, n_units] gets that of
    // x times the first weight.
    void backward(const EncoderNetwork &network, const float *grad_heads, float *product,
                  std::size_t n_threads);

    std::size_t n_items() const { return n_items_; }

  private:
    using Memory = std::vector<float, AlignedAllocator<float>>;
    struct Activations {
        Memory rectified, hidden, moments;
    };

    void resize(const EncoderNetwork &network, std::size_t n_items);
    void normalise(const EncoderLayer &layer, const float *bias, float momentum, Activations &to,
                   float *shift, std::size_t n_threads);
    void second_product(const EncoderNetwork &network, std::size_t n_threads);
    void differentiate_second_product(const EncoderNetwork &network, std::size_t n_threads);
    void differentiate(const EncoderLayer &layer, const Activations &from, float *product,
                       std::size_t n_threads);
    void differentiate_heads(const EncoderNetwork &network, const float *grad_heads,
                             std::size_t n_threads);

    std::size_t n_items_ = 0, n_units_ = 0, n_heads_ = 0;
    // first_.hidden lacks the shift of its normalisation, which is row n_items.
    Activations first_, second_;
    NonZeros factors_;
    Memory second_bias_;                                  // [n_units]
    Memory product_, gradient_;                           // [n_items, n_units]
    Memory head_weight_, head_gradient_, heads_gradient_; // all heads side by side
};

// Of a trained encoder, whose first normalisation is folded into the second weight and bias.
struct TrainedEncoder {
    const float *first_weight, *first_bias, *weight, *bias;
    const float *scale, *shift; // after the second ReLU
    std::size_t n_units;
    const float *head_weight, *head_bias; // linear, on the last layer
    std::size_t n_outputs;
};

// out [n, n_outputs]: the head of x. A row does not depend on the others.
void encode(const TrainedEncoder &encoder, const SparseRows &x, float *out, std::size_t n_threads);

} // namespace ssbhash
