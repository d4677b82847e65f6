#include "core/training/encoder.hpp"
#include "core/base/dispatch.hpp"
#include "core/training/product.hpp"
#include "core/training/small_matrices.hpp"
#include "core/training/training_kernels.hpp"

#include <algorithm>

namespace ssbhash {

void Encoder::resize(const EncoderNetwork &network, std::size_t n_items) {
    n_items_ = n_items;
    n_units_ = network.n_units;
    n_heads_ = 0;
    for (const EncoderHead &head : network.heads)
        n_heads_ += head.width;
    const std::size_t n_rows = n_items + kRowsBeyond; // one for the shift, too
    for (Activations *layer : {&first_, &second_}) {
        layer->rectified.resize(n_items * n_units_);
        layer->hidden.resize(n_rows * n_units_);
        layer->moments.resize(2 * n_units_);
    }
    product_.resize(n_rows * n_units_);
    gradient_.resize(n_items * n_units_);
    second_bias_.resize(n_units_);
    head_weight_.resize(n_units_ * n_heads_);
    head_gradient_.resize(n_units_ * n_heads_);
    heads_gradient_.resize(n_rows * n_heads_);
}

void Encoder::normalise(const EncoderLayer &layer, const float *bias, float momentum,
                        Activations &to, float *shift, std::size_t n_threads) {
    float *mean = to.moments.data();
    relu_norm({product_.data(), bias, layer.scale, layer.shift, n_items_, n_units_, layer.eps,
               momentum, to.rectified.data(), to.hidden.data(), shift, mean, mean + n_units_,
               layer.running_mean, layer.running_variance},
              n_threads);
}

void Encoder::forward(const EncoderNetwork &network, const SparseRows &x, float momentum,
                      float *heads, std::size_t n_threads) {
    resize(network, x.n_rows);
    sparse_product(x, network.first.weight, n_units_, product_.data(), n_threads);
    normalise(network.first, network.first.bias, momentum, first_,
              first_.hidden.data() + n_items_ * n_units_, n_threads);
    second_product(network, n_threads);
    normalise(network.second, second_bias_.data(), momentum, second_, nullptr, n_threads);
    // Few columns cost a product as many: all heads at once.
    std::size_t first = 0;
    for (const EncoderHead &head : network.heads) {
        for (std::size_t i = 0; i < n_units_; ++i)
            copy_short(head.weight + i * head.width, head.width,
                       head_weight_.data() + i * n_heads_ + first);
        first += head.width;
    }
    product({second_.hidden.data(), n_units_, 1}, {head_weight_.data(), n_heads_, 1}, n_items_,
            n_units_, n_heads_, heads, n_threads);
    for (std::size_t i = 0; i < n_items_; ++i)
        for (const EncoderHead &head : network.heads)
            for (std::size_t j = 0; j < head.width; ++j)
                *heads++ += head.bias[j];
}

// (x + shift) W = x W + shift W, where x has the zeros of the rectified layer.
void Encoder::second_product(const EncoderNetwork &network, std::size_t n_threads) {
    factors_.gather({first_.hidden.data(), n_units_, 1}, n_items_ + 1, n_units_);
    factors_.multiply({network.second.weight, n_units_, 1}, n_units_, product_.data(), n_threads);
    const float *constant = product_.data() + n_items_ * n_units_;
    for (std::size_t i = 0; i < n_units_; ++i)
        second_bias_[i] = network.second.bias[i] + constant[i];
}

// From the gradient g of the product, which has the zeros of the second layer: that by W,
// x^T g + shift^T (sum of g), and that by x.
void Encoder::differentiate_second_product(const EncoderNetwork &network, std::size_t n_threads) {
    float *gradient = product_.data();
    std::copy_n(network.second.grad_bias, n_units_, gradient + n_items_ * n_units_);
    factors_.gather({first_.hidden.data(), 1, n_units_}, n_units_, n_items_ + 1);
    factors_.multiply({gradient, n_units_, 1}, n_units_, network.second.grad_weight, n_threads);
    factors_.gather({gradient, n_units_, 1}, n_items_, n_units_);
    factors_.multiply({network.second.weight, 1, n_units_}, n_units_, gradient_.data(), n_threads);
}

void Encoder::differentiate_heads(const EncoderNetwork &network, const float *grad_heads,
                                  std::size_t n_threads) {
    std::copy_n(grad_heads, n_items_ * n_heads_, heads_gradient_.begin());
    product({second_.hidden.data(), 1, n_units_}, {grad_heads, n_heads_, 1}, n_units_, n_items_,
            n_heads_, head_gradient_.data(), n_threads);
    std::size_t first = 0;
    for (const EncoderHead &head : network.heads) {
        for (std::size_t i = 0; i < n_units_; ++i)
            copy_short(head_gradient_.data() + i * n_heads_ + first, head.width,
                       head.grad_weight + i * head.width);
        std::fill_n(head.grad_bias, head.width, 0.0f);
        for (std::size_t i = 0; i < n_items_; ++i)
            for (std::size_t j = 0; j < head.width; ++j)
                head.grad_bias[j] += grad_heads[i * n_heads_ + first + j];
        first += head.width;
    }
    product({heads_gradient_.data(), n_heads_, 1}, {head_weight_.data(), 1, n_heads_}, n_items_,
            n_heads_, n_units_, gradient_.data(), n_threads);
}

void Encoder::differentiate(const EncoderLayer &layer, const Activations &from, float *to,
                            std::size_t n_threads) {
    const float *mean = from.moments.data();
    relu_norm_backward({gradient_.data(), from.rectified.data(), mean, mean + n_units_, layer.scale,
                        n_items_, n_units_, to, layer.grad_bias, layer.grad_scale,
                        layer.grad_shift},
                       n_threads);
}

void Encoder::backward(const EncoderNetwork &network, const float *grad_heads, float *to,
                       std::size_t n_threads) {
    differentiate_heads(network, grad_heads, n_threads);
    differentiate(network.second, second_, product_.data(), n_threads);
    differentiate_second_product(network, n_threads);
    differentiate(network.first, first_, to, n_threads);
}

namespace {

std::vector<Panel> packed(const float *weight, std::size_t k, std::size_t n,
                          std::size_t n_columns) {
    std::vector<Panel> panels((n + n_columns - 1) / n_columns);
    for (std::size_t i = 0; i < panels.size(); ++i)
        panels[i].pack({weight, n, 1}, k, n, i * n_columns, n_columns);
    return panels;
}

} // namespace

void encode(const TrainedEncoder &encoder, const SparseRows &x, float *out, std::size_t n_threads) {
    const std::size_t n_units = encoder.n_units;
    const std::vector<Panel> panels = packed(encoder.weight, n_units, n_units, kSparseColumns),
                             head = packed(encoder.head_weight, n_units, encoder.n_outputs,
                                           Panel::kColumns);
    const auto &kernels = active_isa().training;
    const std::vector<float> ones(n_units, 1.0f), zeros(n_units, 0.0f);
    const std::size_t n_blocks = (x.n_rows + kProductRows - 1) / kProductRows;
    // A block of rows stays in the second-level cache from its sparse rows to its result.
    parallel_for(n_blocks, n_threads, [&](std::size_t block, const Check &) {
        thread_local std::vector<float> first, last;
        thread_local NonZeros factors;
        for (std::vector<float> *layer : {&first, &last})
            layer->resize((kProductRows + kRowsBeyond) * n_units);
        const std::size_t from = block * kProductRows;
        const std::size_t n_rows = std::min(kProductRows, x.n_rows - from);
        for (std::size_t i = 0; i < n_rows; ++i) {
            const std::size_t begin = x.begin(from + i);
            float *row = first.data() + i * n_units;
            kernels.sum_rows(x.columns + begin, x.values + begin, x.end(from + i) - begin,
                             encoder.first_weight, n_units, row);
            kernels.rectify(row, encoder.first_bias, ones.data(), zeros.data(), n_units, row);
        }
        factors.gather({first.data(), n_units, 1}, n_rows, n_units);
        for (const Panel &panel : panels) {
            const std::size_t column = panel.first();
            float *to = last.data() + column;
            factors.multiply(panel, to, n_units);
            for (std::size_t i = 0; i < n_rows; ++i)
                kernels.rectify(to + i * n_units, encoder.bias + column, encoder.scale + column,
                                encoder.shift + column, panel.n_columns(), to + i * n_units);
        }
        for (const Panel &panel : head) {
            float *to = out + from * encoder.n_outputs + panel.first();
            panel.multiply({last.data(), n_units, 1}, n_rows, to, encoder.n_outputs);
            for (std::size_t i = 0; i < n_rows; ++i)
                for (std::size_t j = 0; j < panel.n_columns(); ++j)
                    to[i * encoder.n_outputs + j] += encoder.head_bias[panel.first() + j];
        }
    });
}

} // namespace ssbhash
