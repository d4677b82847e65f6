// The kernels of training on memory of exact sizes, for the sanitizers; tests/test_kernels.py and
// tests/test_losses.py compare their numbers with torch's.
#include "core/training/adam.hpp"
#include "core/training/softmax_regression.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

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

void check_layer(std::size_t n, std::size_t width) {
    constexpr std::size_t n_columns = 530;
    const Sparse x(n, n_columns);
    const Floats weight = uniform(n_columns * width);
    const Floats bias = uniform(width), scale = uniform(width), shift = uniform(width);
    Floats product(n * width), out(n * width), gradient(n * width);
    Floats mean(width), inverse(width), running_mean(width), running_variance(width, 1.0f);
    Floats grad_bias(width), grad_scale(width), grad_shift(width);
    const std::vector<std::uint8_t> bytes(n * width, 77);
    const Dropout dropout{bytes.data(), 77, 1.5f};
    sum_rows(x.view(), weight.data(), width, product.data(), 2);
    dropped(product.data(), n * width, dropout, product.data(), 2);
    relu_norm({product.data(), bias.data(), scale.data(), shift.data(), n, width, 1e-3f, 0.1f,
               out.data(), mean.data(), inverse.data(), running_mean.data(),
               running_variance.data(), dropout},
              2);
    relu_norm_backward({out.data(), product.data(), bias.data(), mean.data(), inverse.data(),
                        scale.data(), n, width, gradient.data(), grad_bias.data(),
                        grad_scale.data(), grad_shift.data(), dropout},
                       2);
    for (const Floats *values : {&out, &running_variance, &gradient, &grad_bias, &grad_shift})
        require(finite(*values), "layer");
}

void check_softmax(std::size_t n, std::size_t n_targets, std::size_t n_bits) {
    const Sparse target(n, n_targets);
    const Floats code = uniform(n * n_bits), weight = uniform(n_targets * n_bits);
    const Floats bias = uniform(n_targets);
    const Decoder decoder{code.data(), weight.data(), bias.data(), n, n_bits, n_targets};
    Floats by_code(code.size()), by_weight(weight.size()), by_bias(bias.size()), first;
    for (const std::size_t n_threads : {1, 2}) {
        const double loss =
            softmax_regression(decoder, target.view(), -16,
                               {by_code.data(), by_weight.data(), by_bias.data()}, n_threads);
        require(std::isfinite(loss) && finite(by_code) && finite(by_bias), "softmax");
        if (first.empty())
            first = by_weight;
    }
    require(by_weight == first, "softmax on one thread and on two");
}

void check_adam(std::size_t n_rows, std::size_t width) {
    Floats weight = uniform(n_rows * width), mean(n_rows * width), square(n_rows * width);
    const Adam adam{weight.data(), mean.data(), square.data(), width, 1e-7f};
    const Floats gradient = uniform(n_rows * width), ones(n_rows, 1.0f);
    std::vector<std::int64_t> rows;
    for (std::size_t row = 0; row < n_rows; row += 2)
        rows.push_back(static_cast<std::int64_t>(row));
    catch_up(adam, {rows.data(), ones.data(), ones.data(), ones.data(), rows.size()}, 2);
    step_rows(adam, {rows.data(), gradient.data(), rows.size()}, 0.1f, 2);
    step_all(adam, {gradient.data()}, {gradient.size()}, 0.1f, 2);
    require(finite(weight) && finite(square), "adam");
}

} // namespace

void check_training() {
    check_layer(2, 1);
    check_layer(37, 70);
    check_layer(100, 65);
    check_softmax(1, 1, 1);
    check_softmax(37, 481, 13);
    check_softmax(100, 960, 32);
    check_adam(1, 1);
    check_adam(130, 37);
    std::printf("training: ok\n");
}
