// A training step's parts on memory of exact sizes, for the sanitizers; tests/test_fused.py
// compares their numbers with autograd's.
#include "core/training/code_losses.hpp"
#include "core/training/decoder.hpp"
#include "core/training/encoder.hpp"
#include "core/training/product.hpp"
#include "core/training/rectified_product.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <random>

using namespace ssbhash;

namespace {

using Floats = std::vector<float>;

std::mt19937 generator(1);

Floats uniform(std::size_t n) {
    Floats values(n);
    for (float &value : values)
        value = std::uniform_real_distribution<float>(-1, 1)(generator);
    return values;
}

void require(bool condition, const char *what) {
    if (!condition) {
        std::printf("FAILED: %s\n", what);
        std::exit(1);
    }
}

bool near(double found, double expected) {
    return std::abs(found - expected) <= 1e-4 * (1 + std::abs(expected));
}

bool finite(const Floats &values) {
    return std::all_of(values.begin(), values.end(), [](float x) { return std::isfinite(x); });
}

// Rows of three values each, the second one empty.
struct Sparse {
    std::vector<std::int64_t> columns, starts;
    Floats values;

    Sparse(std::size_t n, std::size_t n_columns) {
        for (std::size_t i = 0; i < n; ++i) {
            starts.push_back(static_cast<std::int64_t>(columns.size()));
            for (std::size_t j = 0; j < 3 && i != 1; ++j)
                columns.push_back(static_cast<std::int64_t>(generator() % n_columns));
        }
        values = uniform(columns.size());
    }

    SparseRows view() const {
        return {columns.data(), starts.data(), values.data(), starts.size(), columns.size()};
    }
};

void check_product(std::size_t m, std::size_t k, std::size_t n, bool transposed) {
    const Floats by_row = uniform((m + kRowsBeyond) * k), by_column = uniform(m * k + kRowsBeyond);
    const Floats matrix = uniform(k * n);
    const Strided left =
        transposed ? Strided{by_column.data(), 1, m} : Strided{by_row.data(), k, 1};
    const Strided right = transposed ? Strided{matrix.data(), 1, k} : Strided{matrix.data(), n, 1};
    Floats out(m * n);
    product(left, right, m, k, n, out.data(), 2);
    for (std::size_t i = 0; i < m; ++i)
        for (std::size_t j = 0; j < n; ++j) {
            double sum = 0;
            for (std::size_t at = 0; at < k; ++at)
                sum += static_cast<double>(left.data[i * left.row + at * left.column]) *
                       static_cast<double>(right.data[at * right.row + j * right.column]);
            require(near(out[i * n + j], sum), "product");
        }
}

// The same sums as those of the product that multiplies zeros too, to the last bit.
void check_nonzeros(std::size_t m, std::size_t k, std::size_t n, bool transposed) {
    Floats matrix = uniform((m + kRowsBeyond) * (k + kRowsBeyond));
    for (float &value : matrix)
        value = std::max(value, 0.0f);
    const Strided left = transposed ? Strided{matrix.data(), 1, m} : Strided{matrix.data(), k, 1};
    for (std::size_t i = 0; i < m && m > 2; ++i) // a row of zeros, and one without
        for (std::size_t at = 0; at < k; ++at)
            if (i < 2)
                matrix[i * left.row + at * left.column] = static_cast<float>(i);
    const Floats by_row = uniform(k * n), by_column = uniform(k * n);
    NonZeros factors;
    factors.gather(left, m, k);
    for (const Strided &right : {Strided{by_row.data(), n, 1}, Strided{by_column.data(), 1, k}}) {
        Floats out(m * n, -1.0f), expected(m * n);
        factors.multiply(right, n, out.data(), 2);
        product(left, right, m, k, n, expected.data(), 1);
        require(out == expected, "product of non-zeros");
    }
    matrix[0] = std::numeric_limits<float>::quiet_NaN(); // is not lost
    factors.gather(left, m, k);
    Floats out(m * n);
    factors.multiply({by_row.data(), n, 1}, n, out.data(), 1);
    require(std::isnan(out[0]), "NaN among non-zeros");
}

struct Layer {
    Floats weight, bias, scale, shift, mean, variance, grad_weight, grad_bias, grad_scale,
        grad_shift;

    Layer(std::size_t n_in, std::size_t n)
        : weight(uniform(n_in * n)), bias(uniform(n)), scale(uniform(n)), shift(uniform(n)),
          mean(n), variance(n), grad_weight(n_in * n), grad_bias(n), grad_scale(n), grad_shift(n) {}

    EncoderLayer view() {
        return {weight.data(),
                bias.data(),
                scale.data(),
                shift.data(),
                mean.data(),
                variance.data(),
                grad_weight.data(),
                grad_bias.data(),
                grad_scale.data(),
                grad_shift.data(),
                1e-3f};
    }
};

void check_step(std::size_t n, std::size_t n_units, std::size_t n_bits, std::size_t n_classes) {
    const std::size_t n_features = 530;
    Layer first(n_features, n_units), second(n_units, n_units), bits(n_units, n_bits),
        classes(n_units, n_classes);
    const auto head = [](Layer &layer) {
        return EncoderHead{layer.weight.data(), layer.bias.data(), layer.grad_weight.data(),
                           layer.grad_bias.data(), layer.bias.size()};
    };
    const EncoderNetwork network{first.view(), second.view(), {head(bits), head(classes)}, n_units};
    const Sparse x(n, n_features);
    Floats heads(n * (n_bits + n_classes)), grad_heads = heads, code_gradient(n * n_bits);
    Floats decoder = uniform(n_features * n_bits), bias = uniform(n_features),
           code(n * n_bits, 0.3f);
    Floats labels(n * n_classes, 1.0f), grad_decoder = decoder, grad_bias = bias;
    Floats product_gradient(n * n_units);
    Encoder encoder;
    SoftmaxRegression softmax;
    LatentLoss latent;
    for (int repeat = 0; repeat < 2; ++repeat) {
        encoder.forward(network, x.view(), 1.0f, heads.data(), 1);
        const double loss =
            softmax.forward({code.data(), decoder.data(), bias.data(), n, n_bits, n_features},
                            x.view(), -16, code_gradient.data(), 1);
        softmax.backward(1, grad_decoder.data(), grad_bias.data(), 1);
        const LatentTerms terms =
            latent.step({heads.data(), code.data(), code_gradient.data(), labels.data(), n, n_bits,
                         n_classes, true, 0.7f, -16},
                        {1, 1, 1, 1}, grad_heads.data());
        encoder.backward(network, grad_heads.data(), product_gradient.data(), 1);
        require(std::isfinite(loss) && std::isfinite(terms.kl) && std::isfinite(terms.pair),
                "terms");
        for (const Floats *gradient : {&grad_decoder, &second.grad_weight, &bits.grad_weight,
                                       &classes.grad_bias, &product_gradient})
            require(finite(*gradient), "gradients");
    }
}

void check_encode(std::size_t n, std::size_t n_units) {
    constexpr std::size_t n_outputs = 13;
    Layer first(70, n_units), second(n_units, n_units), head(n_units, n_outputs);
    const Sparse x(n, 70);
    Floats out(n * n_outputs), one(n_outputs);
    const TrainedEncoder encoder{first.weight.data(),
                                 first.bias.data(),
                                 second.weight.data(),
                                 second.bias.data(),
                                 second.scale.data(),
                                 second.shift.data(),
                                 n_units,
                                 head.weight.data(),
                                 head.bias.data(),
                                 n_outputs};
    encode(encoder, x.view(), out.data(), 2);
    for (std::size_t i = 0; i < n; ++i) { // alone, a row is the same to the last bit
        const std::size_t begin = x.view().begin(i), end = x.view().end(i);
        const std::int64_t start = 0;
        encode(encoder, {x.columns.data() + begin, &start, x.values.data() + begin, 1, end - begin},
               one.data(), 1);
        require(std::equal(one.begin(), one.end(), out.data() + i * n_outputs), "encode");
    }
}

} // namespace

void check_training() {
    for (const bool transposed : {false, true}) {
        check_product(1, 1, 1, transposed);
        check_product(5, 7, 33, transposed);
        check_product(100, 130, 70, transposed);
        check_product(97, 257, 24, transposed);
        check_product(1031, 3, 40, transposed);
    }
    for (const bool transposed : {false, true}) {
        check_nonzeros(1, 1, 1, transposed);
        check_nonzeros(3, 104, 64, transposed);
        check_nonzeros(101, 105, 75, transposed);
        check_nonzeros(24, 500, 130, transposed);
    }
    check_step(2, 1, 1, 1);
    check_step(37, 70, 13, 5);
    check_step(100, 65, 32, 8);
    check_encode(203, 37);
    std::printf("training: ok\n");
}
